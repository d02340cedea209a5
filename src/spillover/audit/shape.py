"""The section on rows: how many, who speaks in which order, system prompts."""

from collections import Counter

from spillover.audit.findings import Hits, Row, Section, counted, fingerprint

SYSTEM = "system"
SHOWN = 12
"""How many orders of turns are listed."""


class Shape:
    """Who speaks in which order."""

    def __init__(self) -> None:
        self.orders: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        self.prompts: Counter[int] = Counter()
        self.hits = Hits()

    def add(self, row: Row) -> None:
        """Takes in a row."""
        order = " \N{RIGHTWARDS ARROW} ".join(message["role"] for message in row.messages)
        self.orders[order] += 1
        self.first.setdefault(order, row.line)
        for message in row.messages:
            if message["role"] == SYSTEM:
                self.prompts[fingerprint(message["content"])] += 1
                self.hits.add(SYSTEM, row.line, SYSTEM, message["content"])

    def result(self) -> Section:
        """Rows by their order of turns, most frequent first."""
        rows = self.orders.total()
        ordered = sorted(self.orders.items(), key=lambda one: (-one[1], one[0]))
        orders = [{"roles": order, "rows": count, "first_line": self.first[order]} for order, count in ordered[:SHOWN]]
        alike = "all in one order of turns" if len(ordered) == 1 else f"in {len(ordered)} orders of turns"
        return Section(
            "rows",
            "Rows",
            f"{counted(rows, 'row')}, {alike}; {self.hits.count(SYSTEM):,} with a system prompt.",
            "A row is a conversation; what an assistant says in it is what a model would be trained to say.",
            (self.hits.finding(SYSTEM, "A system prompt", rows),),
            {"rows": rows, "orders": orders, "orders_in_all": len(ordered), "system_prompts": len(self.prompts)},
        )
