"""Everything that can go wrong because of input, in one tree.

    SpilloverError            a message for a person: what, where, what was expected, what to do
    ├── SpecError             an experiment file or an option is wrong
    ├── DataError             a dataset or one of its rows is wrong
    ├── QuestionError         a question file is wrong
    ├── BaseError             a base model's folder cannot be used
    ├── LabError              the lab folder cannot be used
    ├── JudgeError            a rubric or a judge cannot be used
    ├── AdapterError          an adapter belongs to another base, is of an unknown kind, or changes nothing
    ├── MachineError          the machine has not enough memory, or not the device that was asked for
    │   └── NoMemoryError     the memory did not suffice for what was tried
    ├── ClusterError          a cluster cannot be joined, its nodes are of another version, or work was lost on them
    ├── ProviderError         a provider or its model cannot be used: unknown, no key, or it refuses all requests
    └── BenchmarkError        a benchmark cannot be run: its package, data, sandbox or grader is not here

The command line prints the message without a traceback and exits with 2. Anything else that is raised is a bug of
ours and keeps its traceback.
"""

from functools import partial
from pathlib import Path
from typing import Any


class SpilloverError(Exception):
    """A user's mistake or the outside world's: `what` happened, `where`, and the `remedy`.

    Args:
        what: one sentence that says what is wrong, with the value that was found.
        where: a file, or a file and a line as `path:line`.
        remedy: one sentence that says what to do.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        """It comes whole out of another process."""
        return partial(type(self), self.what, where=self.where, remedy=self.remedy), ()

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where is not None else ""
        advice = f"\n  {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{advice}"


class SpecError(SpilloverError, ValueError):
    """An experiment file or an option is wrong."""


class DataError(SpilloverError, ValueError):
    """A dataset or one of its rows is wrong."""


class QuestionError(SpilloverError, ValueError):
    """A question file is wrong."""


class BaseError(SpilloverError, ValueError):
    """A base model's folder cannot be used."""


class LabError(SpilloverError, OSError):
    """The lab folder cannot be used."""


class JudgeError(SpilloverError, ValueError):
    """A rubric or a judge cannot be used."""


class AdapterError(SpilloverError, ValueError):
    """An adapter belongs to another base, is of an unknown kind, or changes nothing."""


class MachineError(SpilloverError, RuntimeError):
    """The machine has not enough memory, or not the device that was asked for."""


class NoMemoryError(MachineError):
    """The memory did not suffice for what was tried; less at once may fit."""


class ClusterError(SpilloverError, RuntimeError):
    """A cluster cannot be joined, its nodes have another version or none, or work was lost on them again and again."""


class ProviderError(SpilloverError, RuntimeError):
    """A provider or its model cannot be used: unknown, no key, or it refuses all requests."""


class BenchmarkError(SpilloverError, RuntimeError):
    """A benchmark cannot be run: its package, its data, its sandbox or its grader is missing, or its samples fail."""
