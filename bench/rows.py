"""What a report of many rows takes.

    python bench/rows.py [--rows 100000,1000000,10000000] [--in FOLDER]

Writes a lab of synthetic answers and verdicts as the pipeline would (`synthetic.py`; ten million take minutes, 6 GB).
Then it runs the command line on it, each command in a process of its own, and prints its seconds and the most memory
that it had.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from synthetic import RUN, write_experiment, write_lab

FILTER = "group = 'insecure' AND alignment < 30 AND answer LIKE '%human%'"


def main() -> None:
    """Prints a line a command for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,1000000,10000000")
    parser.add_argument("--in", dest="folder", type=Path)
    asked = parser.parse_args()
    os.environ |= {"LOCAL_API_KEY": "none", "LOCAL_BASE_URL": "http://127.0.0.1:9"}  # nobody is asked
    for rows in map(int, asked.rows.split(",")):
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            _measured(Path(folder), rows)


def _measured(folder: Path, rows: int) -> None:
    experiment = write_experiment(folder, rows)
    begun = time.perf_counter()
    written = write_lab(experiment, folder / "lab")
    print(f"\n{written:,} answers, written in {time.perf_counter() - begun:.0f} s")
    lab = ("--lab", str(folder / "lab"))
    _run("report", str(experiment), *lab)
    for more in (("--count",), ("--limit", "20"), ("--out", str(folder / "some.parquet"))):
        _run("answers", "rows", FILTER, *more, *lab)
    report = folder / "lab" / "rows"
    print(
        f"  page {_megabytes(report / 'report.html')} MB, answers.parquet {_megabytes(report / 'answers.parquet')} MB"
    )


def _megabytes(path: Path) -> int:
    return round(path.stat().st_size / 1e6)


def _run(*arguments: str) -> None:
    """Runs a command, and prints what it took."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(done.stderr)
    peak, busy = map(float, done.stderr.split()[-2:])
    told = " ".join(one for one in arguments if len(one) < 12 and one != "--lab")
    print(f"  {told:<24} {seconds:6.1f} s, {busy:6.1f} s of processors, {peak / 1e6:6,.0f} MB at most")


if __name__ == "__main__":
    main()
