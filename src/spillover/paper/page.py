"""The page that a reproduction ends in: every claim beside what came out, every figure. One HTML file, no script."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from spillover.paper.claims import Result
from spillover.paper.kinds import Found
from spillover.paper.words import amount, rule, span
from spillover.report import page as report
from spillover.report.page import flat

HERE = Path(__file__).parent
WORDS = {True: "holds", False: "does not hold", None: "not tested"}
"""What is said of a claim, beside its sign."""
ROOM = 0.12
"""The share of an interval's small picture that stays free at either side."""
REFERENCES = re.compile(r'((?<![\w-])id="|href="#|url\(#)([^")]+)')
"""Where the text of an SVG file names an element."""
EVERYTHING = re.compile(r"(<style[^>]*>)\s*\*")
"""Where a figure styles all elements: on a page with others it may only mean its own."""


@dataclass(frozen=True)
class Shown:
    """An experiment as the page shows it.

    Attributes:
        name: its name.
        title: what it is about.
        svg: the text of its figure's SVG file; empty where there is none.
        folder: where its report lies, as seen from the page; `../NAME` if not given.
    """

    name: str
    title: str
    svg: str
    folder: str = ""

    @property
    def link(self) -> str:
        """Its folder, as seen from the page."""
        return self.folder or f"../{self.name}"

    @property
    def figure(self) -> str:
        """The figure as part of a page on which others stand: no id of it is that of another's element."""
        svg = self.svg[max(self.svg.find("<svg"), 0) :]
        own = REFERENCES.sub(lambda found: f"{found[1]}{self.name}-{found[2]}", svg)
        return EVERYTHING.sub(rf"\g<1>#figure-{self.name} svg *", own)


@dataclass(frozen=True)
class Part:
    """The claims of one experiment. `shown` is None where the experiment was not run."""

    name: str
    shown: Shown | None
    results: Sequence[Result]

    @property
    def title(self) -> str:
        """The experiment's title; its name where it has none."""
        return self.shown.title if self.shown is not None and self.shown.title else self.name


def render_index(
    results: Sequence[Result],
    experiments: Sequence[Shown],
    provenance: Mapping[str, Any],
    seconds: Mapping[str, float],
    *,
    is_miniature: bool = True,
) -> str:
    """The page as text.

    Args:
        results: every claim with what came out, see `claims.evaluate`.
        experiments: those that were run, in the order in which they are shown.
        provenance: what made it, as `store.provenance` gives it.
        seconds: experiment to how long it took.
        is_miniature: whether the base is the miniature; the page then says that its rates are no real model's.
    """
    return _template().render(
        lead=lead(results, is_miniature=is_miniature),
        parts=parts(results, experiments),
        experiments=experiments,
        provenance=provenance,
        seconds=seconds,
        took=duration(sum(seconds.values())),
        is_miniature=is_miniature,
    )


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    env.filters |= {"flat": flat, "duration": duration, "picture": picture, "behind": behind, "tally": tally}
    env.globals |= {"amount": amount, "span": span, "rule": rule, "words": WORDS}
    env.globals["css"] = Path(report.__file__).with_name("page.css").read_text(encoding="utf-8")
    return env.get_template("paper.html.j2")


def lead(results: Sequence[Result], *, is_miniature: bool = True) -> str:
    """How many claims hold, in one sentence."""
    count = Counter(result.holds for result in results)
    where = " on the miniature" if is_miniature else ""
    verb, be = ("holds" if count[True] == 1 else "hold"), ("was" if count[None] == 1 else "were")
    does = "does not" if count[False] == 1 else "do not"
    others = [f"{count[False]} {does}"] if count[False] else []
    others += [f"{count[None]} {be} not tested"] if count[None] else []
    return f"{count[True]} of {len(results)} claims {verb}{where}{''.join(f', {other}' for other in others)}."


def parts(results: Sequence[Result], experiments: Sequence[Shown]) -> list[Part]:
    """The claims by experiment: those that were run in the order of `experiments`, then the others."""
    shown = {experiment.name: experiment for experiment in experiments}
    names = dict.fromkeys([*shown, *(result.claim.experiment for result in results)])
    of = {name: [result for result in results if result.claim.experiment == name] for name in names}
    return [Part(name, shown.get(name), some) for name, some in of.items() if some]


def tally(results: Sequence[Result]) -> str:
    """How many of an experiment's claims hold: `3 of 5 hold`."""
    holding = sum(result.holds is True for result in results)
    tested = any(result.holds is not None for result in results)
    return f"{holding} of {len(results)} {'holds' if holding == 1 else 'hold'}" if tested else WORDS[None]


def behind(found: Found) -> str:
    """The runs of each group, where they are of a few."""
    counts = list(found.counts.values())
    return " + ".join(map(str, counts)) if 1 < len(counts) <= 5 else ""


def picture(found: Found) -> dict[str, float]:
    """Where things stand in a claim's small picture, in per cent of its width.

    `from` and `to` are the ends of what the bounds allow; `low`, `value` and `high` are ours; `zero` is the bound that
    an interval must not contain, or outside of the picture.
    """
    test, ours = found.by, found.ours
    bounds = [bound for bound in (test.above, test.below, test.unlike) if bound is not None]
    told = [end for end in (ours.low, ours.value, ours.high) if end is not None]
    least, most = min(bounds + told), max(bounds + told)
    width = (most - least) or 1.0

    def at(value: float) -> float:
        return round(100 * (ROOM + (1 - 2 * ROOM) * (value - least) / width), 2)

    low, high = (at(end) if end is not None else edge for end, edge in ((ours.low, 0.0), (ours.high, 100.0)))
    start, end = (0.0 if test.above is None else at(test.above)), (100.0 if test.below is None else at(test.below))
    line = at(test.unlike) if test.unlike is not None else -1.0
    return {"from": start, "to": end, "low": low, "high": high, "value": at(ours.value), "line": line}


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `1 h 12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
