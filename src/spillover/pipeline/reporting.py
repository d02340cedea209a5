"""Reports that a process of its own makes while the next experiment goes on: what is drawn needs one core, and no more.

Whoever uses it holds the lab.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Self

from spillover.crew import Crew, Processes
from spillover.lazy import lazy
from spillover.pipeline.plan import Plan
from spillover.store import Lab

# Torch, polars and matplotlib are loaded where there is something to do.
outcome = lazy("spillover.pipeline.outcome")
workers = lazy("spillover.pipeline.workers")


class Reporter:
    """Makes reports one after the other, in the order in which they were asked for."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def begin(self, plan: Plan) -> "Future[float]":
        """Has the report of a plan made. The future has the seconds that took, or raises what `outcome.report` does."""
        return self._waiting.submit(self._report, plan)

    def _report(self, plan: Plan) -> float:
        (seconds,) = self._crew.do("report", [(plan, self._lab.root)])
        return float(seconds)

    @cached_property
    def _waiting(self) -> ThreadPoolExecutor:
        """A thread that sleeps until a report is there."""
        return self._open.enter_context(ThreadPoolExecutor(1))

    @cached_property
    def _crew(self) -> Crew:
        made = Processes(1, workers.LIBRARIES)
        self._open.callback(made.close)  # before the thread is waited for, which then has nothing to wait for
        return Crew(ReportingHand, made)


class ReportingHand:
    """Makes a report."""

    def report(self, plan: Plan, root: Path, _: object) -> float:
        """As `outcome.report`; returns the seconds that it took."""
        began = time.monotonic()
        outcome.report(plan, Lab(root))
        return time.monotonic() - began
