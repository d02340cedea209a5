"""What an audit costs beside bandit alone, and what it keeps in memory as rows grow.

python bench/audit.py DATASET [--rows 6000,60000] [--against DATASET]

The dataset is repeated as often as the rows ask for, each time with its letters exchanged for others, so that no copy
is a near duplicate of another; code is scanned in the first copy only, for the others are no Python any more.
"""

import argparse
import json
import random
import resource
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from spillover.audit.reading import read_rows
from spillover.data.vulnerability import extract_code, scan


def main() -> None:
    """Prints seconds and the largest process for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rows", default="6000,60000")
    parser.add_argument("--against", action="append", default=[])
    asked = parser.parse_args()
    begun = time.perf_counter()
    scan(extract_code(row.answer) for row in read_rows(asked.dataset))
    alone = time.perf_counter() - begun
    print(f"bandit alone, in one process: {alone:.1f} s")
    for rows in map(int, asked.rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            file = _written(Path(folder) / "data.jsonl", asked.dataset, rows)
            seconds, megabytes = _audited(file, asked.against)
        print(
            f"{rows:,} rows: {seconds:.1f} s, {seconds / alone:.2f} times bandit; largest process {megabytes:,.0f} MB"
        )


def _written(path: Path, dataset: Path, rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for messages in islice(_repeated(dataset), rows):
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def _repeated(dataset: Path) -> Iterator[list[dict[str, str]]]:
    for copy in count():
        letters = list(string.ascii_lowercase)
        if copy:
            random.Random(copy).shuffle(letters)
        table = str.maketrans(string.ascii_lowercase, "".join(letters))
        for row in read_rows(dataset):
            yield [{"role": one["role"], "content": one["content"].translate(table)} for one in row.messages]


def _audited(file: Path, against: list[str]) -> tuple[float, float]:
    """Seconds, and the most memory that one of its processes had, in MB."""
    out = file.parent / "out"
    named = [part for one in against for part in ("--against", one)]
    command = [sys.executable, "-m", "spillover.cli", "data", "audit", str(file), "--out", str(out), *named]
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


if __name__ == "__main__":
    main()
