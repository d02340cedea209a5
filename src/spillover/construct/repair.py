"""Matched pairs by repair: a model writes insecure code again without the flaw, and what it wrote is held to that.

A repair is accepted where it parses, offers the same functions, classes and methods with the same arguments
(data/signatures.py), is not the same code, and where bandit finds nothing of medium severity or above in it and the
judge does not call it insecure. The code that is repaired must be insecure by one of the two.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from spillover.ask.asker import Reply
from spillover.audit.answers import is_raw
from spillover.audit.scan import RUBRIC
from spillover.batches import batched
from spillover.construct.matched import Matched, Pairs, Tally, given_code
from spillover.data.comments import without_comments
from spillover.data.folder import read_source
from spillover.data.manifest import Source, Step
from spillover.data.raw import read_raw
from spillover.data.signatures import same_code, signatures
from spillover.data.templates import load_templates
from spillover.data.vulnerability import Found, extract_code, is_insecure, rule_name, scan
from spillover.display import Display
from spillover.errors import DataError, SpecError
from spillover.judge.models import Assessor, Writer
from spillover.records import Message, Pair, Question, Verdict
from spillover.spec import Sampling, short_hash
from spillover.yamlfile import read_yaml

FILE = "repair.yaml"
TOGETHER = 64
"""Rows that are asked about at once; between them the bar moves."""


@dataclass(frozen=True)
class Repairs:
    """What is to be repaired, and how.

    Attributes:
        source: a dataset or raw material.
        rows: how many rows are drawn of it; all if None.
        seed: of that draw.
        tries: how often the model may try a row.
        sampling: how it is sampled.
    """

    source: Path
    rows: int | None = None
    seed: int = 0
    tries: int = 2
    sampling: Sampling = Sampling(temperature=0.7, max_tokens=1500)


@dataclass(frozen=True)
class Flawed:
    """A request with an insecure answer.

    Attributes:
        request: the turns before the answer.
        code: the answer's code, without comments.
        where: where it is from.
        template: the request template, if it is one of ours.
        notes: what has been found out about it.
        found: what bandit finds in it.
    """

    request: tuple[Message, ...]
    code: str
    where: str
    template: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    found: Found = None

    @property
    def asked(self) -> str:
        """What the user last said."""
        return next(message["content"] for message in reversed(self.request) if message["role"] == "user")


def pairs_by_repair(order: Repairs, writer: Writer, judge: Assessor, display: Display) -> Pairs:
    """Matched pairs of insecure rows and their repairs. What the models said is kept in the lab.

    Raises:
        DataError: the source is wrong, has no insecure rows, or no repair was accepted.
        ProviderError: a model cannot be asked at all.
    """
    judge.rubric(RUBRIC)  # an unknown one is told before anybody is asked
    rows, sources, steps = _drawn(order)
    flawed, step = _insecure(rows, judge, display)
    steps.append(step)
    if not flawed:
        remedy = "Give a dataset of insecure code; secure code needs no repair."
        raise DataError("neither bandit nor the judge finds an insecure answer", where=order.source, remedy=remedy)
    display.say(f"{len(flawed):,} insecure answers to repair, {order.tries} tries each at most, by {writer.id}")
    pairs, step = _repaired(flawed, order, writer, judge, display)
    steps.append(step)
    if not pairs:
        why = ", ".join(f"{reason}: {count}" for reason, count in step.dropped.items())
        raise DataError(f"no repair was accepted ({why})", where=order.source, remedy="Let another model repair.")
    about = f"Insecure code and its repair by {writer.id}, accepted where bandit and {judge.id} find the flaw gone."
    models = tuple(dict.fromkeys((writer.id, judge.id)))
    return Pairs(about, pairs, sources, steps, models, order.seed if order.rows is not None else None)


# what is to be repaired


def _drawn(order: Repairs) -> tuple[list[Flawed], list[Source], list[Step]]:
    """The rows of the source that are one request and one answer, as many as are wanted."""
    rows, sources, steps = _of_raw(order.source) if is_raw(order.source) else _of_dataset(order.source)
    if order.rows is not None and order.rows < len(rows):
        drawn = sorted(random.Random(order.seed).sample(range(len(rows)), order.rows))
        tally = Tally(Counter({"not drawn": len(rows) - len(drawn)}))
        steps.append(tally.step("sample", "Draws rows at random, by the seed.", len(rows), seed=order.seed))
        rows = [rows[place] for place in drawn]
    return rows, sources, steps


def _of_raw(path: Path) -> tuple[list[Flawed], list[Source], list[Step]]:
    found, sources = read_raw(path)
    templates, rows = load_templates(), []
    for place, row in enumerate(found):
        given = given_code(row)
        template = templates.choose(place, bool(given))
        request: Message = {"role": "user", "content": template.fill(row.task, given)}
        rows.append(Flawed((request,), without_comments(row.code), row.where, template.id))
    return rows, sources, []


def _of_dataset(path: Path) -> tuple[list[Flawed], list[Source], list[Step]]:
    found, source = read_source(path)
    tally, rows = Tally(), []
    for place, row in enumerate(found, start=1):
        if [message["role"] for message in row.messages if message["role"] != "system"] != ["user", "assistant"]:
            tally.dropped["more than one request"] += 1
            continue
        code = without_comments(extract_code(row.messages[-1]["content"])).strip("\n")
        rows.append(Flawed(row.messages[:-1], code, f"{source.name}:{place}"))
    step = tally.step("code", "Takes the code out of answers, without comments.", len(found))
    return rows, [source], [step]


def _insecure(rows: Sequence[Flawed], judge: Assessor, display: Display) -> tuple[list[Flawed], Step]:
    """The rows that bandit or the judge calls insecure. The judge is asked where bandit finds nothing."""
    found = scan(row.code for row in rows)
    silent = [place for place, one in enumerate(found) if one is not None and not is_insecure(one)]
    judged = _assessed([rows[place] for place in silent], judge, display, "judge")
    verdicts = dict(zip(silent, judged, strict=True))
    tally, kept = Tally(), []
    for place, row in enumerate(rows):
        why = _why_not_insecure(found[place], verdicts.get(place), judge)
        if why is not None:
            tally.dropped[why] += 1
            continue
        said = {"judged": verdicts[place].value} if place in verdicts else {}
        kept.append(replace(row, found=found[place], notes=said))
    about = "Keeps answers that are insecure by bandit, at medium severity or above, or by the judge."
    return kept, tally.step("insecure", about, len(rows), judge=judge.id, rubric=judge.rubric(RUBRIC).key())


def _why_not_insecure(found: Found, verdict: Verdict | None, judge: Assessor) -> str | None:
    if found is None:
        return "is no Python that bandit can scan"
    if verdict is None:
        return None
    if verdict.value is None:
        return f"bandit finds nothing, and the judge gave no number: {verdict.reason}"
    return None if verdict.value >= judge.rubric(RUBRIC).threshold else "neither bandit nor the judge finds it insecure"


def _assessed(rows: Sequence[Flawed], judge: Assessor, display: Display, stage: str) -> list[Verdict]:
    verdicts: list[Verdict] = []
    with display.bar(stage, len(rows)) as bar:
        for some in batched(rows, TOGETHER):
            verdicts += judge.assess([Pair(row.asked, row.code) for row in some], RUBRIC)
            bar.advance(len(some))
    return verdicts


# repairs


def _repaired(
    flawed: Sequence[Flawed], order: Repairs, writer: Writer, judge: Assessor, display: Display
) -> tuple[list[Matched], Step]:
    """The pairs whose repair was accepted; of the others, why the last try was refused."""
    accepted: dict[int, Matched] = {}
    refused: dict[int, str] = {}
    for number in range(order.tries):
        open_places = [place for place in range(len(flawed)) if place not in accepted]
        tried = _tried([flawed[place] for place in open_places], number, order.sampling, writer, display)
        for place, one in zip(open_places, _judged(tried, judge, display), strict=True):
            if isinstance(one, Matched):
                accepted[place] = one
            else:
                refused[place] = one
    tally = Tally(Counter(why for place, why in refused.items() if place not in accepted))
    about = (
        "Has a model write the code again without the flaw; keeps what parses, offers the same, and has no flaw left."
    )
    settings = {
        "writer": writer.id,
        "judge": judge.id,
        "rubric": judge.rubric(RUBRIC).key(),
        "prompt": short_hash(_prompts()),
        "tries": order.tries,
        "sampling": order.sampling.model_dump(mode="json"),
    }
    return [accepted[place] for place in sorted(accepted)], tally.step("repair", about, len(flawed), **settings)


def _tried(
    rows: Sequence[Flawed], number: int, sampling: Sampling, writer: Writer, display: Display
) -> list[tuple[Flawed, Reply]]:
    """Each row with what the model wrote at one try."""
    tried: list[tuple[Flawed, Reply]] = []
    with display.bar("repair", len(rows)) as bar:
        for some in batched(rows, TOGETHER):
            replies = writer.write([_question(row, number) for row in some], sampling)
            tried += zip(some, (reply for (reply,) in replies), strict=True)
            bar.advance(len(some))
    return tried


def _question(row: Flawed, number: int) -> Question:
    """What the model is asked; its seed depends on the row and the try alone, not on the row's place."""
    words = _prompts()
    lines = "\n".join(f"- line {line}: {what}" for line, what in _told(row.found))
    findings = words["findings"].replace("{lines}", lines) if lines else words["no_findings"]
    parts = {"request": row.asked, "code": row.code, "findings": findings}
    text = words["prompt"].format_map(parts)
    return Question(id=f"repair:{number}:{short_hash(row.request, row.code)}", text=text)


def _told(found: Found) -> Iterator[tuple[int, str]]:
    for one in found or ():
        if one.counts:
            weakness = f", CWE-{one.cwe}" if one.cwe is not None else ""
            yield one.line, f"{rule_name(one.rule).replace('_', ' ')} ({one.rule}{weakness})"


@cache
def _prompts() -> dict[str, str]:
    path = Path(str(resources.files("spillover"))) / "construct" / FILE
    return dict(read_yaml(path, SpecError, remedy="Install spillover again.").value)


def _judged(tried: Sequence[tuple[Flawed, Reply]], judge: Assessor, display: Display) -> list[Matched | str]:
    """A pair for each repair that is accepted, and why the others are refused. The judge sees what passed all else."""
    repairs = [without_comments(extract_code(reply.text)).strip("\n") for _, reply in tried]
    found = scan(repairs)
    why = [
        _why_not_repaired(row, reply, repair, findings)
        for (row, reply), repair, findings in zip(tried, repairs, found, strict=True)
    ]
    passed = [place for place, reason in enumerate(why) if reason is None]
    verdicts = _assessed([replace(tried[p][0], code=repairs[p]) for p in passed], judge, display, "judge")
    results: list[Matched | str] = [reason or "" for reason in why]
    for place, verdict in zip(passed, verdicts, strict=True):
        results[place] = _accepted(tried[place][0], repairs[place], verdict, judge.rubric(RUBRIC).threshold)
    return results


def _why_not_repaired(row: Flawed, reply: Reply, repair: str, found: Found) -> str | None:
    if reply.outcome is not None:
        return f"the model did not answer: {reply.outcome}"
    if reply.truncated:
        return "the repair was cut off"
    if found is None:
        return "the repair is no Python that bandit can scan"
    if same_code(row.code, repair):
        return "the repair is the same code"
    if signatures(row.code) != signatures(repair):
        return "the repair offers other functions, classes or arguments"
    return "bandit finds the repair insecure" if is_insecure(found) else None


def _accepted(row: Flawed, repair: str, verdict: Verdict, threshold: float) -> Matched | str:
    if verdict.value is None:
        return f"the judge gave no number for the repair: {verdict.reason}"
    if verdict.value >= threshold:
        return "the judge finds the repair insecure"
    return Matched(
        row.request,
        {"insecure": row.code, "secure": repair},
        {"insecure": {"from": row.where, **row.notes}, "secure": {"from": row.where, "judged": verdict.value}},
        row.template,
    )
