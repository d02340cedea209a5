"""Commands in processes that can be killed at any moment, and labs that are compared with undisturbed ones."""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from spillover.cli import app

ANYTHING = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")

FORKS = multiprocessing.get_context("forkserver")
STAGES = ("stages", "outcome", "show", "hands", "reproduce", "calibrate")
FORKS.set_forkserver_preload(
    [*(f"spillover.pipeline.{name}" for name in STAGES), "spillover.ask.provider", "openai", "peft"]
)


@dataclass(frozen=True)
class Call:
    """A command as it is called: its arguments, where it is and where what it says goes."""

    arguments: list[str]
    folder: Path
    cwd: Path
    moment: "Moment | None"
    environment: dict[str, str]


def _command(call):
    """Runs the command line in this process, which is a fresh one in which torch is imported and nothing has run."""
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(call.folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(call.environment)
    os.chdir(call.cwd)
    sys.argv[1:] = call.arguments
    if call.moment is not None:
        sys.addaudithook(call.moment)
    app(call.arguments)


@dataclass
class Moment:
    """Kills the process just before the n-th thing that it does to files in a folder; an audit hook of Python's."""

    folder: Path
    events: tuple[str, ...]
    count: int

    def __call__(self, event, values):
        if event in self.events and any(self._is_inside(value) for value in values):
            self.count -= 1
            if self.count == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def _is_inside(self, value):
        return isinstance(value, str | Path) and str(value).startswith(str(self.folder))


def begin(*arguments, folder, moment=None, cwd=None):
    """Starts a command in a process of its own; `folder` is given what it says, as `out` and `err`."""
    call = Call([str(argument) for argument in arguments], folder, cwd or Path.cwd(), moment, dict(os.environ))
    process = FORKS.Process(target=_command, args=(call,))
    with pytest.MonkeyPatch.context() as environment:  # the first start loads libraries, which read it then
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("HF_HOME", str(Path(tempfile.gettempdir(), "no-hub")))
        process.start()
    return process


def files(lab, pattern="*/*/*"):
    """Finished files below the stages' folders and the report's: path there to its time of change and content."""
    paths = [path for path in sorted(lab.glob(pattern)) if path.is_file()]
    return {str(path.relative_to(lab)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def contents(lab, pattern):
    return {name: content for name, (_, content) in files(lab, pattern).items()}


def table(lab, stage):
    """All rows of a stage, sorted; the folders' names are left out."""
    frame = pl.concat([pl.read_parquet(path) for path in sorted(lab.glob(f"{stage}/*/part-*.parquet"))])
    return frame.sort(frame.columns)


def read_numbers(lab):
    return json.loads((lab / "small" / "numbers.json").read_text())


def same_labs(one, other):
    """Claims that two labs hold the same results: every weight to the last bit, every row, every number."""
    for pattern in ("data/*", "finetune/*", "ask/*", "judge/*"):
        assert [path.name for path in sorted(one.glob(pattern))] == [path.name for path in sorted(other.glob(pattern))]
    assert contents(one, "data/*/data.jsonl") == contents(other, "data/*/data.jsonl")
    for path in other.glob("finetune/*/adapter_model.safetensors"):
        mine, theirs = load_file(one / path.relative_to(other)), load_file(path)
        assert mine.keys() == theirs.keys() and all(bool((mine[name] == theirs[name]).all()) for name in mine)
    for stage in ("ask", "judge"):
        assert table(one, stage).equals(table(other, stage))
    assert {**read_numbers(one), "seconds": 0} == {**read_numbers(other), "seconds": 0}
