"""Progress on a terminal; nothing at all where there is none."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
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
        self.done += count
        self.progress.update(self.task, completed=self.done)

    def within(self, count: int) -> Callable[[int, int], None]:
        """A listener to (steps done, steps) that moves the bar by `count` while the steps go by."""
        start = self.done

        def listen(done: int, steps: int) -> None:
            self.done = start + count * done / steps
            self.progress.update(self.task, completed=self.done)

        return listen


class Display:
    """Shows what is going on, on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

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
        )
        with Progress(*columns, console=self.console, disable=not sys.stderr.isatty()) as progress:
            yield Bar(progress, progress.add_task(stage, total=total))

    def track(self, stage: str, items: Sequence[T]) -> Iterator[T]:
        """The items, with a bar that counts them."""
        if not items:
            return
        with self.bar(stage, len(items)) as bar:
            for item in items:
                yield item
                bar.advance(1)
