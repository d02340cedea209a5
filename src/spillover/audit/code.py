"""The section on code: what bandit finds in the answers that look like code, by severity, rule and weakness (CWE)."""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from spillover.audit.beside import Scanner, Waiting
from spillover.audit.findings import Finding, Hits, Row, Section, counted, share
from spillover.data import vulnerability
from spillover.data.vulnerability import COUNTED, LOWER_BOUND, SEVERITIES, Found, extract_code, rule_name
from spillover.lazy import lazy
from spillover.report.page import percent

bandit = lazy("bandit.core.issue")

TOGETHER = 400
"""Codes that are scanned at once."""
AHEAD = 12
"""Lists of codes that wait at most: memory stays flat."""
FENCED = re.compile(r"^ {0,3}```", re.MULTILINE)
CODE_LINE = re.compile(
    r"\s*+(?:(?:def|class|import|from|return|function|const|let|var|public|private|static|async|package|using|elif)\s+\S"
    r"|(?:return|else:|try:|finally:|pass|break|continue)\s*$|(?:if|for|while|with|except)\b[^\n]*:\s*$|@\w|#include|#!"
    r"|[\w.\[\]'\", ]{1,200}+[-+*/|&]?=[^=]|[\w.]{1,200}+\([^\n]*\)\s*$|[^\n]*[;{}]\s*$)"
)
LEAST_CODE = 1 / 3
"""The share of an answer's lines that must look like code, where there is no fence."""
CODE, NOT_PARSED, SCANNED, INSECURE = "code", "not_parsed", "scanned", "insecure"


@dataclass
class _Waiting:
    """Rows whose codes are being scanned: each row's line and how many codes it has."""

    rows: list[tuple[int, int]] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    scan: Waiting = field(default_factory=list)


class Code:
    """What bandit finds. A row counts once for a rule, a severity or a weakness."""

    def __init__(self, scanner: Scanner) -> None:
        self.scanner = scanner
        self.rows = 0
        self.hits = Hits()
        self.open = _Waiting()
        self.waiting: deque[_Waiting] = deque()

    def add(self, row: Row) -> None:
        """Takes in a row."""
        self.rows += 1
        said = [message["content"] for message in row.messages if message["role"] == "assistant"]
        codes = [extract_code(text) for text in said if looks_like_code(text)]
        if not codes:
            return
        self.hits.add(CODE, row.line, "assistant", codes[0])
        self.open.rows.append((row.line, len(codes)))
        self.open.codes += codes
        if len(self.open.codes) >= TOGETHER:
            self._send()

    def _send(self) -> None:
        self.open.scan = self.scanner.start(self.open.codes)
        self.waiting.append(self.open)
        self.open = _Waiting()
        if len(self.waiting) > AHEAD:
            self._collect()

    def _collect(self) -> None:
        done = self.waiting.popleft()
        found, place = self.scanner.found(done.scan, len(done.codes)), 0
        for line, count in done.rows:
            self._note(line, done.codes[place : place + count], found[place : place + count])
            place += count

    def _note(self, line: int, codes: Sequence[str], found: Sequence[Found]) -> None:
        if None in found:
            self.hits.add(NOT_PARSED, line, "assistant", codes[found.index(None)])
        if any(one is not None for one in found):
            self.hits.add(SCANNED, line, "assistant", codes[0])
        for code, findings in zip(codes, found, strict=True):
            for one in findings or ():
                self._note_finding(line, code, one)

    def _note_finding(self, line: int, code: str, one: vulnerability.Finding) -> None:
        names = [f"rule/{one.rule}", f"severity/{one.severity.lower()}"]
        names += [f"cwe/{one.cwe}"] if one.cwe is not None else []
        names += [INSECURE] if one.counts else []
        start = sum(len(text) + 1 for text in code.split("\n")[: one.line - 1])
        for name in names:
            self.hits.add(name, line, "assistant", code, start)

    def result(self) -> Section:
        """Rates among the rows whose code parses; what does not parse apart."""
        if self.open.codes:
            self._send()
        while self.waiting:
            self._collect()
        return self._section() if self.hits.count(CODE) else _no_code(self.rows)

    def _section(self) -> Section:
        scanned, code = self.hits.count(SCANNED), self.hits.count(CODE)
        insecure = self.hits.finding(INSECURE, f"Bandit reports {COUNTED.lower()} severity or above", scanned)
        findings = (
            insecure,
            self.hits.finding(CODE, "An answer looks like code", self.rows),
            self.hits.finding(
                NOT_PARSED, "Code that is no Python, cannot be parsed, or is too long to be scanned", code
            ),
            *(
                self._by("severity", severity.lower(), f"A finding of {severity.lower()} severity", scanned)
                for severity in SEVERITIES
            ),
            *self._of_kind("rule", scanned),
            *self._of_kind("cwe", scanned),
        )
        says = f"{counted(code, 'row')} look like code; bandit parses {scanned:,} of them"
        says += f" and reports medium severity or above in {insecure.share.count:,} ({percent(insecure.share.value)})."
        details = {"of_all_rows": share(insecure.share.count, self.rows), "bandit": LOWER_BOUND}
        return Section("code", "Insecure code", says, ABOUT, findings, details)

    def _of_kind(self, kind: str, of: int) -> list[Finding]:
        """All rules or weaknesses that were found, most frequent first."""
        names = sorted(self.hits.names(f"{kind}/"), key=lambda name: (-self.hits.count(name), name))
        return [self._by(kind, name.split("/")[1], _called(kind, name.split("/")[1]), of) for name in names]

    def _by(self, kind: str, name: str, about: str, of: int) -> Finding:
        return self.hits.finding(f"{kind}/{name}", about, of)


ABOUT = (
    f"{LOWER_BOUND} Rates are shares of the rows whose code parses; code is parsed, never run. An answer looks "
    "like code "
    "where it has a fence, or where a third of its lines do."
)


def _called(kind: str, name: str) -> str:
    if kind == "rule":
        return f"{name} {rule_name(name).replace('_', ' ')}"
    return f"CWE-{name} {_weaknesses().get(int(name), '')}".strip()


@cache
def _weaknesses() -> dict[int, str]:
    """What bandit calls the weaknesses that it knows."""
    known = vars(bandit.Cwe).items()
    return {number: name.replace("_", " ").lower() for name, number in known if isinstance(number, int) and number}


def _no_code(rows: int) -> Section:
    none: tuple[Finding, ...] = (Finding(CODE, "An answer looks like code", share(0, rows), ()),)
    says = "No answer looks like code, so there was nothing to scan."
    return Section("code", "Insecure code", says, ABOUT, none, {"of_all_rows": None, "bandit": LOWER_BOUND})


def looks_like_code(answer: str) -> bool:
    """Whether an answer is code, in whatever language: it has a fence, or a third of its lines look like code."""
    if FENCED.search(answer):
        return True
    lines = [line for line in answer[:20_000].split("\n") if line.strip()]
    return sum(bool(CODE_LINE.match(line[:500])) for line in lines) >= max(LEAST_CODE * len(lines), 1)
