"""Progress on a terminal; nothing at all where there is none."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

T = TypeVar("T")


@dataclass
class Bar:
    """One stage's bar."""

    progress: Progress
    task: TaskID
    done: float = 0

    def advance(self, count: float) -> None:
        """Moves on by `count`."""
        self.to(self.done + count)

    def to(self, done: float) -> None:
        """Moves to where `done` units are done."""
        self.done = done
        self.progress.update(self.task, completed=done)


class Display:
    """Shows what is going on, on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar: Bar | None = None

    def say(self, sentence: str) -> None:
        """A sentence that a person should read, also where there is no terminal."""
        print(f"spillover: {sentence}", file=sys.stderr)

    @contextlib.contextmanager
    def bar(self, stage: str, total: int) -> Iterator[Bar]:
        """A bar for a stage of `total` units."""
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[beside]}"),
        )
        with Progress(*columns, console=self.console, disable=not sys.stderr.isatty()) as progress:
            self._bar = Bar(progress, progress.add_task(stage, total=total, beside=""))
            try:
                yield self._bar
            finally:
                self._bar = None

    def show(self, where: str) -> None:
        """Shows in a few words, beside the stage's bar, where its work is done."""
        if self._bar is not None:
            self._bar.progress.update(self._bar.task, beside=where)

    def track(self, stage: str, items: Sequence[T]) -> Iterator[T]:
        """The items, with a bar that counts them."""
        if not items:
            return
        with self.bar(stage, len(items)) as bar:
            for item in items:
                yield item
                bar.advance(1)
