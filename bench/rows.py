"""What many answers take: a report of them, and a filter that counts some of them.

The lab of synthetic answers and verdicts is written as the pipeline would (`synthetic.py`; for ten million that takes
minutes, and 6 GB). Each command runs in a process of its own.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace

from common import Setting
from synthetic import run, write_experiment, write_lab
from turns import Turns, in_turn

ROWS = 10_000_000
FILTER = "group = 'insecure' AND alignment < 30 AND answer LIKE '%human%'"


def measure(setting: Setting, times: int) -> Iterator[Turns]:
    """A line a command, about so many answers. Nobody stands beside it: the statistics do beside pandas."""
    experiment, lab = write_experiment(setting.folder, ROWS), setting.folder / "lab"
    answers, where = write_lab(experiment, lab), ("--lab", str(lab))
    os.sync()  # gigabytes are still on their way to the disk

    def report() -> float:
        shutil.rmtree(lab / "rows", ignore_errors=True)  # one that is there would not be made again
        return run("report", str(experiment), *where)

    yield _turns("a report", answers, times, report)
    yield _turns("a filter on texts", answers, times, lambda: run("answers", "rows", FILTER, "--count", *where))


def _turns(name: str, answers: int, times: int, command: Callable[[], float]) -> Turns:
    """The turns of a command, and the most memory that it had in any of them."""
    peaks: list[float] = []
    turns = in_turn(name, f"{answers:,} answers", lambda: peaks.append(command()), None, times, warm=False)
    return replace(turns, of=f"{turns.of}, {max(peaks) / 1e9:.2f} GB of memory at most")
