"""Running an experiment: all stages, or one."""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from spillover.display import Display
from spillover.errors import ClusterError
from spillover.lazy import lazy
from spillover.pipeline.fit import check_fit
from spillover.pipeline.plan import Plan
from spillover.pipeline.staff import ClusterStaff, OwnStaff, Staff
from spillover.store import DONE, Lab, check_ours, open_lab, read_json, read_lab

# Torch and matplotlib are loaded by the stages that need them: a finished experiment is shown without.
stages = lazy("spillover.pipeline.stages")
judging = lazy("spillover.pipeline.judging")
parts = lazy("spillover.pipeline.parts")
asking = lazy("spillover.pipeline.asking")
choosing = lazy("spillover.pipeline.choosing")
benchmarking = lazy("spillover.pipeline.benchmarking")
workers = lazy("spillover.pipeline.workers")
outcome = lazy("spillover.pipeline.outcome")

STAGES = ("train", "ask", "judge", "report")


def run(plan: Plan, root: Path, only: str | None = None, cluster: str | None = None) -> Path | None:
    """Makes what is missing of an experiment in a lab.

    Args:
        plan: what is wanted.
        root: the lab's folder; made where there is none.
        only: one of `STAGES`; all of them if not given.
        cluster: the Ray cluster that works, by its address; this machine if not given.

    Returns:
        the report's folder, where the report was wanted.

    Raises ClusterError where work was lost on a cluster again and again, once all the rest is done.
    """
    display = Display()
    plan = prepared(plan, read_lab(root), display, only)
    with open_lab(root) as lab, ExitStack() as stack:
        check_ours(plan.report_folder(lab))
        if is_finished(plan, lab) and only in (None, "report"):
            return plan.report_folder(lab)
        staff = stack.enter_context(staff_of(cluster, display))
        if only is None:
            expect(plan, lab, staff)
        for stage in STAGES if only is None else (only,):
            make(stage, plan, lab, display, staff)
        check_lost(staff)
        return plan.report_folder(lab) if only in (None, "report") else None


def staff_of(cluster: str | None, display: Display) -> Staff:
    """Who works: the cluster at an address, or this machine. Raises ClusterError where it cannot be joined."""
    return OwnStaff() if cluster is None else ClusterStaff(cluster, display)


def check_lost(staff: Staff) -> None:
    """Raises ClusterError where work was lost for good, with all of it."""
    if staff.lost:
        what = f"{len(staff.lost)} pieces of work were lost and are missing:\n  " + "\n  ".join(staff.lost)
        raise ClusterError(
            what, remedy="All else is done and kept. Run the same command again: it does what is missing."
        )


def prepared(plan: Plan, lab: Lab, display: Display, only: str | None = None) -> Plan:
    """The plan as it can be run here: without benchmarks whose data is absent. Writes nothing.

    Raises QuestionError where a question does not fit the base.
    """
    if is_finished(plan, lab):
        return plan
    if only not in ("judge", "report"):
        check_fit(plan)
    if plan.experiment.inspect and only != "judge":
        plan = benchmarking.without_absent(plan, lab, display)
    return plan


def expect(plan: Plan, lab: Lab, staff: Staff) -> None:
    """Has libraries loaded for what the staff will do here. That takes seconds: what is refused is refused before."""
    if not staff.is_away:
        workers.expect(plan, lab)


def make(stage: str, plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Makes what is missing of one of the `STAGES`, in a lab that is held, by the command's staff.

    Where work was lost before, what needs it is left out, and so is the report.
    """
    if staff.lost:
        if stage == "report":
            return
        plan = _without_lost(plan, lab, answered=stage == "judge")
        if not plan.cells:
            return
    _WORK[stage](plan, lab, display, staff)


def _without_lost(plan: Plan, lab: Lab, *, answered: bool) -> Plan:
    """The plan of those checkpoints that are there, and of those cells that are answered, if they are to be."""
    there = [one for one in plan.checkpoints if stages.trained(one, lab)]
    return dataclasses.replace(
        plan,
        checkpoints=tuple(there),
        cells=tuple(
            cell
            for cell in plan.cells
            if cell.checkpoint in there and not (answered and any(parts.missing_spans(cell, lab)))
        ),
        choices=tuple(cell for cell in plan.choices if cell.checkpoint in there),
        benchmarks=tuple(cell for cell in plan.benchmarks if cell.checkpoint in there),
    )


def is_finished(plan: Plan, lab: Lab) -> bool:
    """Whether the report of exactly this plan is there, and everything that it was made from."""
    folder = plan.report_folder(lab)
    if not lab.exists(folder):
        return False
    done = read_json(folder / DONE)
    if done.get("key") != plan.key:
        return False
    if done.get("failed") and done.get("tried") != parts.tried(plan.growing_folders(lab)):
        return False
    chosen = [cell.folder(lab) for cell in plan.choices] + [cell.folder(lab) for cell in plan.benchmarks]
    wholes = [*(path for one in plan.checkpoints if (path := one.folder(lab)) is not None), *chosen]
    return all(map(lab.exists, wholes)) and all(cell.folder(lab).is_dir() for cell in plan.cells)


def _train(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    stages.make_data(plan, lab, display)
    stages.finetune(plan, lab, display, staff)


def _ask(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    asking.ask(plan, lab, display, staff)
    choosing.choose(plan, lab, display, staff)
    benchmarking.measure(plan, lab, display, staff)


_WORK: dict[str, Callable[[Plan, Lab, Display, Staff], object]] = {
    "train": _train,
    "ask": _ask,
    "judge": lambda plan, lab, display, staff: judging.judge(plan, lab, display, staff),
    "report": lambda plan, lab, display, staff: outcome.report(plan, lab),
}
