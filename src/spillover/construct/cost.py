"""What a generation costs: told before, by a stated rule, and after, by what was really used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from spillover.ask.usage import Use
from spillover.construct.domain import Check, Part, checks_of, prompts, systems_of
from spillover.construct.size import PER_WORD
from spillover.construct.task import Task
from spillover.errors import SpecError
from spillover.judge.rubrics import Rubric, find_rubric, load_rubrics

SIGNS = 4
"""Characters a token, as English prompts mostly have them."""
TOPIC_WORDS = 8
RULE = (
    f"Estimated: {SIGNS} characters a token in prompts, 4/3 tokens a word in replies, each as long as it may be. A "
    "judge without token probabilities is asked for several numbers a text; a model that is new here gets some tiny "
    "requests."
)


@dataclass(frozen=True)
class Price:
    """Dollars a million tokens, read and written."""

    tokens_in: float
    tokens_out: float

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """Dollars."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


@dataclass(frozen=True)
class Load:
    """Requests of one kind: what for, who is asked (`writer` or `judge`), how many, and their tokens together."""

    what: str
    who: str
    requests: int
    tokens_in: int
    tokens_out: int


def read_price(text: str | None, option: str) -> Price | None:
    """A price from `IN,OUT`. Raises SpecError for anything else."""
    if text is None:
        return None
    try:
        tokens_in, tokens_out = (float(part) for part in text.split(","))
    except ValueError:
        tokens_in = tokens_out = -1.0
    if not (0 <= tokens_in < float("inf") and 0 <= tokens_out < float("inf")):
        remedy = "Give dollars a million tokens, read and written, such as 2.50,10."
        raise SpecError(f"{option} is {text!r}, and no two prices", remedy=remedy)
    return Price(tokens_in, tokens_out)


@dataclass(frozen=True)
class Plan:
    """What a generation comes to, if nothing falls.

    Attributes:
        task: what is wanted.
        pairs: requests that get answers.
        topics: topics that they are about; 0 where requests are given.
    """

    task: Task
    pairs: int
    topics: int

    def loads(self) -> list[Load]:
        """The requests to models, in order."""
        size, domain = self.task.size, self.task.domain
        asked, answered = self._asked(), _of_words(self.pairs * size.answer_words)
        parts: tuple[Part, Part] = ("good", "bad")
        answers = [
            Load(f"{part} answers", "writer", self.pairs, self._systems(part) + asked, answered) for part in parts
        ]
        before = [self._check(check, asked) for check in checks_of(domain, "request")]
        checks = [*checks_of(domain, "bad"), *checks_of(domain, "good")]
        return [*self._lists(), *before, *answers, *(self._check(check, asked + answered) for check in checks)]

    def _lists(self) -> list[Load]:
        """The lists of topics and of requests. A writer is told the topics that are there: half of them, on average."""
        size, domain = self.task.size, self.task.domain
        if not self.topics:
            return []
        batches = ceil(self.topics / size.batch)
        known = _of_words(batches * (self.topics // 2) * TOPIC_WORDS)
        people = max(map(len, prompts().people)) + max(map(len, prompts().situations))
        topics = batches * (len(prompts().topics) + len(domain.domain))
        requests = self.topics * (len(prompts().requests) + len(domain.domain) + size.per_topic * people)
        return [
            Load("topics", "writer", batches, _of_signs(topics) + known, _of_words(batches * size.batch * TOPIC_WORDS)),
            Load("requests", "writer", self.topics, _of_signs(requests), _of_words(self.pairs * size.words)),
        ]

    def _asked(self) -> int:
        """Tokens of all requests together."""
        given = (self.task.given or ())[: self.pairs]
        return _of_signs(sum(map(len, given))) if given else _of_words(self.pairs * self.task.size.words)

    def _systems(self, part: Part) -> int:
        """Tokens of the system prompts."""
        systems = systems_of(self.task.domain, part, self.task.size.answer_words)
        return _of_signs(self.pairs * sum(map(len, systems)) / len(systems))

    def _check(self, check: Check, texts: int) -> Load:
        rubric = check.read(self.task.domain)
        prompt = (rubric if isinstance(rubric, Rubric) else find_rubric(rubric, load_rubrics(None))).prompt
        about = len(self.task.domain.domain) if check.of == "request" else 0
        tokens = _of_signs((len(prompt) + about) * self.pairs) + texts
        return Load(f"check: {check.name}", "judge", self.pairs, tokens, self.pairs)


def make_plan(task: Task) -> Plan:
    """The plan of a task."""
    size = task.size
    if task.given is not None:
        return Plan(task, min(size.rows, len(task.given)), 0)
    first = ceil(size.first / size.per_topic)
    topics = first + ceil(size.further(first * size.per_topic, first * size.per_topic) / size.per_topic)
    return Plan(task, topics * size.per_topic, topics)


def _of_words(words: float) -> int:
    return ceil(words * PER_WORD)


def _of_signs(signs: float) -> int:
    return ceil(signs / SIGNS)


def plan_lines(plan: Plan, prices: Mapping[str, Price | None]) -> list[str]:
    """The plan in words: a table of what is asked, the sums, the money where prices are known, and the rule."""
    size, loads = plan.task.size, plan.loads()
    about = f" about {plan.topics} topics; at most {size.most:,} if many fall" if plan.topics else " that are given"
    rows = [(load.what, load.who, *_counts(load.requests, load.tokens_in, load.tokens_out)) for load in loads]
    heads = ("for", "asked", "requests", "tokens in", "tokens out")
    sums = [_sum(loads, who, prices.get(who)) for who in dict.fromkeys(load.who for load in loads)]
    return [f"for {size.rows:,} pairs: {plan.pairs:,} requests{about}", *table(heads, rows), *sums, RULE]


def _counts(*numbers: int) -> list[str]:
    return [f"{number:,}" for number in numbers]


def _sum(loads: Sequence[Load], who: str, price: Price | None) -> str:
    own = [load for load in loads if load.who == who]
    requests = sum(load.requests for load in own)
    read, written = sum(load.tokens_in for load in own), sum(load.tokens_out for load in own)
    money = f", ${price.of(read, written):,.2f}" if price is not None else ""
    return f"{who}: {requests:,} requests, {read:,} tokens in, {written:,} tokens out{money}"


def use_lines(models: Mapping[str, Use], prices: Mapping[str, Price | None]) -> list[str]:
    """What was really used, a model a line; money where its price is known and a provider counted its tokens."""
    told = {name: _used(use, prices.get(name)) for name, use in models.items()}
    return [f"used: {name}: {what}" for name, what in told.items() if what]


def _used(use: Use, price: Price | None) -> str:
    known = [f"{use.found:,} replies known already"] if use.found else []
    return ", ".join([*(_sent(use, price) if use.sent else _local(use)), *known])


def _sent(use: Use, price: Price | None) -> list[str]:
    failed = "; ".join(f"{count:,} {why.removeprefix('failed: ')}" for why, count in sorted(use.failed.items()))
    money = [f"${price.of(use.tokens_in, use.tokens_out):,.2f}"] if price is not None else []
    tries = f"{use.sent:,} requests sent" + (f" (failed tries: {failed})" if failed else "")
    return [tries, f"{use.tokens_in:,} tokens in", f"{use.tokens_out:,} tokens out", *money]


def _local(use: Use) -> list[str]:
    written = [f"{use.tokens_out:,} tokens written"] if use.tokens_out else []
    return [f"{use.asked:,} replies in {use.seconds:,.0f} s", *written] if use.asked else []


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as they need to be: two of words, then numbers."""
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    return ["  ".join(_cells(row, widths)) for row in (heads, *rows)]


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = zip(row, widths, strict=True)
    return [cell.ljust(width) if at < 2 else cell.rjust(width) for at, (cell, width) in enumerate(cells)]
