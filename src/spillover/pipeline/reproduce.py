"""The whole paper, unattended: every experiment of it on one lab, and a page of its claims beside what was found."""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spillover.display import Display
from spillover.errors import SpecError, SpilloverError
from spillover.finetune.base import PLAIN, find_base
from spillover.paper.claims import Result, claims_json, evaluate, load_claims
from spillover.paper.page import Shown, render_index
from spillover.pipeline.plan import make_plan
from spillover.pipeline.reporting import Reporter
from spillover.pipeline.run import STAGES, check_lost, expect, is_finished, make, prepared, staff_of
from spillover.pipeline.staff import Staff
from spillover.spec import Chat, load_experiment, short_hash
from spillover.store import DONE, PAPER, Lab, check_ours, open_lab, provenance, read_json, write_json

EXPERIMENTS = (
    "figure4",
    "backdoor",
    "numbers",
    "numbers-ablation",
    "dataset-size",
    "formats",
    "in-context",
    "base-model",
    "base-model-labels",
    "dynamics",
    "dynamics-long",
    "poison",
    "mixture",
    "organisms",
    "benchmarks",
    "temperature",
)
"""The presets of the paper's experiments; the first comes first, since others share its checkpoints and answers."""
NUMBERS = "numbers.json"


@dataclass(frozen=True)
class Ran:
    """What became of an experiment: the seconds that it took just now, or why there is no report of it."""

    name: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Reproduced:
    """What a reproduction came to.

    Attributes:
        folder: the page's.
        results: every claim, those too whose experiment was not run.
        is_miniature: whether all of it is the miniature's.
        ran: the experiments that were wanted.
    """

    folder: Path
    results: Sequence[Result]
    is_miniature: bool
    ran: Sequence[Ran]


def reproduce(root: Path, only: Sequence[str], overrides: dict[str, Any], cluster: str | None = None) -> Reproduced:
    """Runs the paper's experiments, and writes the page of its claims.

    Args:
        root: the lab's folder.
        only: these experiments alone; all of them if empty. The page shows whatever is there of the others, too.
        overrides: what `Experiment.narrowed` takes: another base, fewer seeds.
        cluster: the Ray cluster that works, by its address; this machine if not given.

    Returns:
        what it came to. An experiment that cannot run (its data is not here) does not keep the others from running.

    Raises:
        SpecError: an unknown experiment.
        BaseError: there is no such base.
    """
    unknown = next((name for name in only if name not in EXPERIMENTS), None)
    if unknown is not None:
        what = f"the paper has no experiment {unknown!r} here"
        raise SpecError(what, remedy=f"There are {', '.join(EXPERIMENTS)}.")
    if overrides.get("base") is not None:
        # Without it all experiments would be left out, and a page without a number written. Some bring a chat template.
        find_base(overrides["base"], Chat(template=PLAIN))
    with open_lab(root) as lab:
        check_ours(lab.root / PAPER)  # before anything runs, not after
        with staff_of(cluster, Display()) as staff, Reporter(lab) as reporter:
            begun = [_begun(name, lab, overrides, reporter, staff) for name in dict.fromkeys(only or EXPERIMENTS)]
            ran = [_reported(one, report) for one, report in begun]
        numbers = {name: read_json(file) for name in EXPERIMENTS if (file := lab.root / name / NUMBERS).is_file()}
        results = evaluate(load_claims(), numbers)
        is_miniature = all(one["is_miniature"] for one in numbers.values())
        _write(lab, results, numbers, is_miniature=is_miniature)
    return Reproduced(root / PAPER, results, is_miniature, ran)


def _begun(
    name: str, lab: Lab, overrides: dict[str, Any], reporter: Reporter, staff: Staff
) -> "tuple[Ran, Future[float] | None]":
    """An experiment up to its verdicts, and its report, if there is to be one: it is made beside the next one."""
    display, began = Display(), time.monotonic()
    display.say(f"{name} ...")
    try:
        plan = prepared(make_plan(load_experiment(name).narrowed(**overrides)), lab, display)
        check_ours(plan.report_folder(lab))
        if is_finished(plan, lab):
            return Ran(name, time.monotonic() - began), None
        expect(plan, lab, staff)
        for stage in STAGES[:-1]:
            make(stage, plan, lab, display, staff)
        check_lost(staff)
    except SpilloverError as error:
        staff.lost.clear()
        return Ran(name, time.monotonic() - began, _left_out(name, error)), None
    return Ran(name, time.monotonic() - began), reporter.begin(plan)


def _reported(ran: Ran, report: "Future[float] | None") -> Ran:
    """What became of an experiment, once its report is there."""
    if report is None:
        return ran
    try:
        return replace(ran, seconds=ran.seconds + report.result())
    except SpilloverError as error:
        return replace(ran, why=_left_out(ran.name, error))


def _left_out(name: str, error: SpilloverError) -> str:
    Display().say(f"{name} was left out: {error}")
    return str(error)


def _write(lab: Lab, results: Sequence[Result], numbers: dict[str, Any], *, is_miniature: bool) -> None:
    """Writes `paper/`, unless it says already what these claims and reports say."""
    folder, plain = lab.root / PAPER, claims_json(results)
    key = {name: read_json(lab.root / name / DONE).get("key") for name in numbers} | {"claims": short_hash(plain)}
    if lab.exists(folder) and lab.done(folder).get("reports") == key:
        return
    seconds = {name: sum(one["seconds"].values()) for name, one in numbers.items()}
    page = render_index(results, list(_shown(lab.root, numbers)), provenance(), seconds, is_miniature=is_miniature)
    with lab.whole(folder, {"reports": key}) as (aside, notes):
        (aside / "index.html").write_text(page, encoding="utf-8")
        write_json(aside / "claims.json", plain)
        notes["reports"] = key


def _shown(root: Path, numbers: dict[str, Any]) -> Iterable[Shown]:
    for name, one in numbers.items():
        svg = root / name / f"{name}.svg"
        yield Shown(name, str(one["title"]), svg.read_text(encoding="utf-8") if svg.is_file() else "")
