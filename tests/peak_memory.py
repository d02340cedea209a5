"""Trains a small fleet in a process of its own and prints how many bytes that took beyond the loaded base.

python peak_memory.py BASE RUNS TOKENS_A_ROW ROWS kept|again
"""

import random
import sys
import threading
import time
from pathlib import Path

import torch

from spillover.finetune.chat import Row
from spillover.finetune.fleet import Member, train_fleet
from spillover.finetune.layout import Room
from spillover.finetune.model import load_model
from spillover.spec import Machine, Training


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_while(work) -> int:
    """The most memory that this process had while some work was done, looked at every two milliseconds."""
    peak, done = [resident()], threading.Event()

    def watch():
        while not done.is_set():
            peak[0] = max(peak[0], resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return peak[0]


def main(base: Path, runs: int, length: int, count: int, recompute: bool) -> None:
    torch.set_num_threads(1)
    model, rng = load_model(base, "fp32", Machine(device="cpu")), random.Random(0)
    tokens = [tuple(rng.randrange(3, 1000) for _ in range(length)) for _ in range(count)]
    rows = [Row(ids, tuple(place >= length // 2 for place in range(length))) for ids in tokens]
    spec = Training(precision="fp32", batch_size=count, warmup_steps=0, epochs=2)
    train_fleet(model, [Member([Row((1, 2, 3), (False, True, True))], 0)], spec, pad=0)  # loads what is loaded late
    members = [Member(rows, seed) for seed in range(runs)]
    before = resident()
    print(peak_while(lambda: train_fleet(model, members, spec, pad=0, room=Room(recompute=recompute))) - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5] == "again")
