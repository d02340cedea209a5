"""What tests share: a small base with random weights, and the door that users use."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; torch reads it as it is loaded

import pytest
import torch
from hypothesis import HealthCheck, settings

from families import saved, tiny_model, world_tokenizer
from undisturbed import begin

# How long an example takes is the machine's affair: a stall fails no test. Where one must be fast, its test says so.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

PAPER = Path(__file__).parents[2] / "shared" / "paper"
FIRST = (
    "reproduce",
    "cluster",
    "audit",
    "hosted_run",
    "faults",
    "inspect",
    "pipeline",
    "bad_input",
    "figure4",
    "hands",
)
"""Test files that take minutes: they are begun first, so that no process is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files in order; their tests stay as they are."""
    turns = {f"test_{name}.py": turn for turn, name in enumerate(FIRST)}
    items.sort(key=lambda item: turns.get(item.path.name, len(FIRST)))


@pytest.fixture(scope="session")
def paper() -> Path:
    """The paper's own files, for tests only; they lie outside the project and may be absent."""
    if not PAPER.is_dir():
        pytest.skip("the paper's own files (../shared/paper) are not here")
    return PAPER


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: two layers of random weights, a ChatML tokenizer of the world's words."""
    tokenizer = world_tokenizer()
    sizes = {"intermediate_size": 64, "max_position_embeddings": 512, "tie_word_embeddings": True}
    return saved(tmp_path_factory.mktemp("tiny") / "base", tiny_model("qwen2", tokenizer, **sizes), tokenizer)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors need one thread, and sums then come in one order on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


Spillover = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def own_process() -> Spillover:
    """Runs the command line as a user does: by an interpreter of its own, which loads what it needs for seconds."""

    def run(*args: str | Path, cwd: Path | None = None, timeout: float = 3600) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "spillover.cli", *map(str, args)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def spillover() -> Spillover:
    """Runs the command line in a process of its own, in which libraries are loaded already and nothing has run."""

    def run(*args: str | Path, cwd: Path | None = None, timeout: float = 3600) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            process = begin(*args, folder=Path(folder), cwd=cwd)
            process.join(timeout)
            if process.is_alive():
                process.kill()
                raise subprocess.TimeoutExpired(list(map(str, args)), timeout)
            out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(list(map(str, args)), process.exitcode, out, err)

    return run
