"""Inspect's evaluations: a task is loaded, put to a model, and every sample's score is read from Inspect's log."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as run_eval
from inspect_ai._eval.loader import load_tasks  # what `eval` itself calls; nothing public loads a task by name
from inspect_ai._util.registry import registry_params
from inspect_ai.log import EvalLog
from inspect_ai.model import Model

from spillover.ask.failures import shortened
from spillover.ask.inspected import LocalAPI
from spillover.ask.scores import Scored, facts_of, said, scores_of
from spillover.ask.tasks import TaskSource, check_docker
from spillover.errors import BenchmarkError, SpecError
from spillover.spec import Benchmark

MOST_FAILED = 0.05
"""Above this share of samples that fail, it is not the samples: nothing is kept."""


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation came to: every sample's values, and what Inspect's log says of the whole."""

    scores: tuple[Scored, ...]
    facts: dict[str, Any]


def load_task(source: TaskSource, args: Mapping[str, Any], where: str) -> Task:
    """Loads a task with its data.

    Raises:
        SpecError: there is no such task, it does not take these arguments, its file does not run, or it would run a
            model's code outside of a sandbox.
        BenchmarkError: its data, a package or its sandbox is not here.
    """
    with _quiet(), _told(source, where):
        found = load_tasks([source.ref], dict(args))
    if not found:
        raise SpecError(f"there is no task {source.ref}", where=where, remedy="Check its name.")
    task = found[0]
    unused = sorted(set(args) - set(registry_params(task)))
    if unused:
        raise SpecError(f"{source.ref} takes no argument {unused[0]!r}", where=f"{where}.args", remedy="Leave it out.")
    _check_sandbox(task, source, where)
    return task


def evaluate(
    task: Task, spec: Benchmark, model: Model, grader: Model | None, logs: Path, most: int, where: str
) -> Evaluated:
    """Puts a task to a model and reads the scores.

    Args:
        task: what `load_task` gave.
        spec: how many samples.
        model: who is asked.
        grader: who plays the role `grader`, if it is played.
        logs: the folder that Inspect's log is written to.
        most: samples that are under way at once.
        where: the benchmark, for people.

    Raises:
        BenchmarkError: more than a few samples failed, or none got a score.
        SpilloverError: the model itself failed.
        KeyboardInterrupt: as if there were no Inspect in between.
    """
    roles: dict[str, Any] = {"grader": grader} if grader is not None else {}
    with _quiet():
        log = run_eval(
            task,
            model=model,
            model_roles=roles,
            limit=spec.limit,
            max_samples=most,
            fail_on_error=MOST_FAILED,
            display="none",
            log_level="critical",
            log_dir=str(logs),
            log_format="eval",
            log_realtime=False,
            score_display=False,
            ctl_server=False,
        )[0]
    if isinstance(model.api, LocalAPI) and model.api.failed is not None:
        raise model.api.failed
    if log.status == "cancelled":
        raise KeyboardInterrupt
    scores = tuple(scores_of(log))
    _check_log(log, scores, where)
    return Evaluated(scores, facts_of(log))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What libraries print goes to standard error, and what they log is left to us to tell."""
    logging.getLogger("inspect_ai").setLevel(logging.CRITICAL)
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _told(source: TaskSource, where: str) -> Iterator[None]:
    """What goes wrong while a task is loaded, in words: its code is others' and may raise anything."""
    try:
        yield
    except OSError as error:  # connections, and files that are not there
        what = f"the data of {source.name} is not here and cannot be fetched: {shortened(error)}"
        remedy = "Run once where the network reaches it, with the same HF_HOME and home folder; then it is found here."
        raise BenchmarkError(what, where=where, remedy=remedy) from None
    except ImportError as error:
        what = f"{source.name} needs a package that is not installed: {shortened(error)}"
        raise BenchmarkError(what, where=where, remedy="Install it.") from None
    except Exception as error:
        what = f"the task cannot be made: {type(error).__name__}: {shortened(error)}"
        raise SpecError(what, where=_place(error, source) or where, remedy="Correct the task, or its `args`.") from None


def _place(error: BaseException, source: TaskSource) -> str | None:
    """The line of the task's own file at which it failed, if it did there."""
    file, found, trace = source.ref.rpartition("@")[0], None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _check_sandbox(task: Task, source: TaskSource, where: str) -> None:
    """Raises SpecError where a model's code would be run on this machine, BenchmarkError where Docker is missing."""
    specs = [task.sandbox, *(sample.sandbox for sample in task.dataset)]
    kinds = {spec.type for spec in specs if spec is not None}
    if "local" in kinds or (source.sandboxed and not kinds):
        raise SpecError(
            f"{source.name} would run what the model writes on this machine, outside of a sandbox",
            where=where,
            remedy="Give it a sandbox, such as `docker`.",
        )
    if "docker" in kinds:
        check_docker(where)


def _check_log(log: EvalLog, scores: Sequence[Scored], where: str) -> None:
    failed = [sample for sample in log.samples or [] if sample.error is not None]
    if log.status == "success" and any(score.value is not None for score in scores):
        return
    raised = failed[0].error if failed else log.error
    why = f": {said(raised.message)}" if raised is not None else ""
    asked = len(log.samples or [])
    what = f"{len(failed)} of {asked} samples failed{why}" if failed else f"no sample got a score{why}"
    raise BenchmarkError(what, where=where, remedy="Mend it and run the same command again; nothing of it was kept.")
