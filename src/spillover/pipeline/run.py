"""Running an experiment: all stages, or one."""

from collections.abc import Callable
from pathlib import Path

from spillover.crew import Staff
from spillover.display import Display
from spillover.lazy import lazy
from spillover.pipeline.fit import check_fit
from spillover.pipeline.plan import Plan
from spillover.store import DONE, Lab, check_ours, open_lab, read_json

# Torch and matplotlib are loaded by the stages that need them: a finished experiment is shown without.
stages = lazy("spillover.pipeline.stages")
asking = lazy("spillover.pipeline.asking")
choosing = lazy("spillover.pipeline.choosing")
benchmarking = lazy("spillover.pipeline.benchmarking")
workers = lazy("spillover.pipeline.workers")
outcome = lazy("spillover.pipeline.outcome")

STAGES = ("train", "ask", "judge", "report")


def run(plan: Plan, root: Path, only: str | None = None) -> Path | None:
    """Makes what is missing of an experiment in a lab.

    Args:
        plan: what is wanted.
        root: the lab's folder; made where there is none.
        only: one of `STAGES`; all of them if not given.

    Returns:
        the report's folder, where the report was wanted.
    """
    display = Display()
    plan = prepared(plan, Lab(root), display, only)
    with open_lab(root) as lab, Staff() as staff:
        check_ours(plan.report_folder(lab))
        if is_finished(plan, lab) and only in (None, "report"):
            return plan.report_folder(lab)
        for stage in STAGES if only is None else (only,):
            make(stage, plan, lab, display, staff)
        return plan.report_folder(lab) if only in (None, "report") else None


def prepared(plan: Plan, lab: Lab, display: Display, only: str | None = None) -> Plan:
    """The plan as it can be run here: without benchmarks whose data is absent. Writes nothing.

    Raises QuestionError where a question does not fit the base.
    """
    if is_finished(plan, lab):
        return plan
    if only not in ("judge", "report"):
        check_fit(plan)
    if only is None:
        workers.expect(plan, lab)
    if plan.experiment.inspect and only != "judge":
        plan = benchmarking.without_absent(plan, lab, display)
    return plan


def make(stage: str, plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Makes what is missing of one of the `STAGES`, in a lab that is held, by the command's processes."""
    _WORK[stage](plan, lab, display, staff)


def is_finished(plan: Plan, lab: Lab) -> bool:
    """Whether the report of exactly this plan is there, and everything that it was made from."""
    folder = plan.report_folder(lab)
    if not lab.exists(folder):
        return False
    done = read_json(folder / DONE)
    if done.get("key") != plan.key or (done.get("failed") and _tried_again(plan, lab, folder)):
        return False
    chosen = [cell.folder(lab) for cell in plan.choices] + [cell.folder(lab) for cell in plan.benchmarks]
    wholes = [*(path for one in plan.checkpoints if (path := one.folder(lab)) is not None), *chosen]
    return all(map(lab.exists, wholes)) and all(cell.folder(lab).is_dir() for cell in plan.cells)


def _tried_again(plan: Plan, lab: Lab, report: Path) -> bool:
    """Whether answers or verdicts that had failed may have been made since the report."""
    folders = [cell.folder(lab) for cell in plan.cells]
    folders += [plan.verdict_folder(lab, rubric) for rubric in plan.rubrics.values()]
    made = (report / DONE).stat().st_mtime_ns
    return any(part.stat().st_mtime_ns > made for folder in folders for part in folder.glob("part-*.parquet"))


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
    "judge": lambda plan, lab, display, staff: stages.judge(plan, lab, display, staff),
    "report": lambda plan, lab, display, staff: outcome.report(plan, lab),
}
