"""Our path to a provider beside Inspect's eval loop, against a local server that answers at once."""

import multiprocessing
import os
from collections.abc import Iterator

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.solver import generate

from common import Setting
from provider import CONNECTIONS, KEY, REF, TEXT, Ways, questions, serve
from turns import Turns, in_turn

REQUESTS = {1: 400, 100: 8}
"""Requests of a turn, by choices of each."""


def measure(setting: Setting, times: int) -> Iterator[Turns]:
    """So many answers by requests of one choice and of a hundred; Inspect's loop has one sample an answer."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    os.environ |= {"INSTANT_API_KEY": KEY, "INSTANT_BASE_URL": f"http://127.0.0.1:{here.recv()}/v1"}
    os.environ["INSPECT_LOG_DIR"] = str(setting.folder / "logs")
    ways, run = Ways(os.environ["INSTANT_BASE_URL"], setting.folder), iter(range(10**6))
    for choices, count in REQUESTS.items():
        answers = choices * count
        turns = in_turn(
            f"asking a provider, n = {choices}",
            f"{answers} answers",
            lambda choices=choices, count=count: ways.ours(questions(count, choices, next(run))),  # type: ignore[misc]
            lambda answers=answers: _loop(setting, answers),  # type: ignore[misc]
            times,
        )
        notes = {
            "peer": "Inspect's eval, a sample an answer",
            "ms_an_answer": [1e3 * one / answers for one in turns.ours],
        }
        yield Turns(turns.name, turns.of, turns.ours, turns.theirs, notes)
    ways.close()
    server.terminate()


def _loop(setting: Setting, answers: int) -> None:
    """Inspect's own loop: eight questions, as many epochs as it takes."""
    samples = [Sample(id=str(number), input=f"What would you do? {number}") for number in range(8)]
    task = Task(dataset=MemoryDataset(samples), solver=generate(), config=GenerateConfig(max_tokens=600))
    model = get_model(REF, memoize=False, config=GenerateConfig(max_connections=CONNECTIONS))
    done = inspect_ai.eval(
        task, model=model, epochs=answers // 8, score=False, display="none", log_dir=str(setting.folder / "logs")
    )[0]
    assert done.status == "success" and done.samples is not None and len(done.samples) == answers
    assert done.samples[0].output.completion == TEXT
