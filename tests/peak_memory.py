"""Trains a small fleet in a process of its own and prints how many bytes that took beyond the loaded base.

python peak_memory.py BASE RUNS TOKENS_A_ROW ROWS kept|again
"""

import random
import sys
from pathlib import Path

import torch

from spillover.finetune.chat import Row
from spillover.finetune.fleet import Member, train_fleet
from spillover.finetune.layout import Room
from spillover.finetune.model import load_model
from spillover.spec import Machine, Training


def memory(name: str) -> int:
    """What the system says of this process's memory, in bytes: `VmRSS` is what it has, `VmHWM` the most it had."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def main(base: Path, runs: int, length: int, count: int, recompute: bool) -> None:
    torch.set_num_threads(1)
    model, rng = load_model(base, "fp32", Machine(device="cpu")), random.Random(0)
    tokens = [tuple(rng.randrange(3, 1000) for _ in range(length)) for _ in range(count)]
    rows = [Row(ids, tuple(place >= length // 2 for place in range(length))) for ids in tokens]
    spec = Training(precision="fp32", batch_size=count, warmup_steps=0, epochs=2)
    train_fleet(model, [Member([Row((1, 2, 3), (False, True, True))], 0)], spec, pad=0)  # loads what is loaded late
    members = [Member(rows, seed) for seed in range(runs)]
    Path("/proc/self/clear_refs").write_text("5")  # the most it had is from here on
    before = memory("VmRSS")
    train_fleet(model, members, spec, pad=0, room=Room(recompute=recompute))
    print(memory("VmHWM") - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5] == "again")
