"""Fleets through whoever trains them: what does not fit is split, what is lost is told run by run."""

from dataclasses import replace

import pytest
import torch

from spillover.crew import Hands, Lost
from spillover.errors import NoMemoryError
from spillover.finetune import train
from spillover.finetune.base import find_base
from spillover.finetune.model import told_when_memory_ends
from spillover.finetune.train import LocalTrainer
from spillover.finetune.trainer import Job, Trained
from spillover.pipeline.fleets import dealt
from spillover.pipeline.training import train_all
from spillover.records import Conversation, Run
from spillover.spec import Training

SPEC = Training(learning_rate=1e-3, batch_size=2, precision="fp32", save_every=1)
ROWS = [
    Conversation(({"role": "user", "content": f"Count to {n}."}, {"role": "assistant", "content": "1 2 3"}))
    for n in range(4)
]


def job(seed):
    return Job(Run("insecure", seed), ROWS, "rows.jsonl")


class Small(Hands):
    """Hands that have room for so many runs; runs of the seed 9 are lost however few they are."""

    size = 1

    def __init__(self, room):
        self.room, self.tried = room, []

    def each(self, method, shares, hear=lambda *_: None):
        for number, (jobs, _) in enumerate(shares):
            seeds = [one.run.seed for one in jobs]
            self.tried.append(seeds)
            hear(number, (1, 2))
            if len(jobs) > self.room or 9 in seeds:
                yield number, Lost("killed", for_memory=True)
            else:
                yield number, [Trained({"seed": torch.tensor(seed)}, []) for seed in seeds]


def test_a_fleet_that_is_lost_for_want_of_memory_is_tried_in_halves_and_its_runs_come_in_order():
    hands, told = Small(2), []
    fleets = [([job(seed) for seed in range(5)], SPEC), ([job(5)], SPEC)]
    found = dict(train_all(fleets, hands, told.append, away=False))
    assert [[int(one.adapter["seed"]) for one in found[number]] for number in (0, 1)] == [[0, 1, 2, 3, 4], [5]]
    assert hands.tried == [[0, 1, 2, 3, 4], [5], [0, 1], [2, 3, 4], [2], [3, 4]]
    assert told[-1] == 6 and max(told) <= 6, "as many runs' worth of training as there are"


def test_a_run_that_is_lost_alone_is_lost_and_its_company_is_not():
    ((_, found),) = train_all([([job(1), job(9), job(2)], SPEC)], Small(3), lambda _: None, away=False)
    assert [isinstance(one, Lost) for one in found] == [False, True, False]


def test_a_fleet_that_the_device_has_no_room_for_is_trained_in_halves_as_it_would_have_been(
    tiny_base, one_thread, monkeypatch, tmp_path
):
    trainer = LocalTrainer(find_base(str(tiny_base)), "fp32")
    jobs = [replace(job(seed), folder=tmp_path / str(seed)) for seed in range(3)]
    for one in jobs:
        one.folder.mkdir()
    whole = trainer.train(jobs, SPEC, lambda done, steps: None)
    fleet, sizes, told = train.train_fleet, [], []

    def with_room_for_one(model, members, *args, **kwargs):
        sizes.append(len(members))
        if len(members) > 1:
            fleet(model, members, *args, **kwargs)  # as far as it comes
            torch.empty(2**60)
        return fleet(model, members, *args, **kwargs)

    monkeypatch.setattr(train, "train_fleet", with_room_for_one)
    halves = trainer.train(jobs, SPEC, lambda done, steps: told.append(done / steps))
    assert sizes == [3, 1, 2, 1, 1] and told[-1] == 1
    for one, other in zip(whole, halves, strict=True):
        for name, weights in one.adapter.items():
            assert torch.allclose(weights, other.adapter[name], atol=1e-6), name


def test_one_run_that_the_device_has_no_room_for_is_told():
    with pytest.raises(NoMemoryError, match="memory did not suffice"), told_when_memory_ends():
        torch.empty(2**60)


def test_work_is_dealt_out_like_cards():
    assert dealt("abcdefg", 3) == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
