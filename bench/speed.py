"""Our way beside the peers', on this machine: `make bench`. Writes a part of docs/performance.md and its figure.

    python bench/speed.py [--only training,asking,judging,inspect,statistics,rows,figure4] [--times 5] [--out docs]

Each line is one kind of work, done by us and by what people would use instead, in turn, several times in one run.
Ratios are taken turn by turn, since the machine's speed changes from minute to minute; their spread stands beside them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asking
import inspect_loop
import judging
import rows
import speed_page
import statistics_way
import training
from common import Setting, be_quiet
from turns import Turns, in_turn


def figure4(setting: Setting, times: int) -> Iterator[Turns]:
    """The command that makes the figure, in an empty lab; there is nothing like it to stand beside."""
    labs = iter(range(10**6))

    def run() -> None:
        command = [
            sys.executable,
            "-m",
            "spillover.cli",
            "run",
            "figure4",
            "--lab",
            str(setting.folder / f"lab{next(labs)}"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    yield in_turn("figure4", "28 runs and their base, 23,200 answers", run, None, times, warm=False)


KINDS: dict[str, Callable[[Setting, int], Iterator[Turns]]] = {
    "training": training.measure,
    "asking": asking.measure,
    "judging": judging.measure,
    "inspect": inspect_loop.measure,
    "statistics": statistics_way.measure,
    "rows": rows.measure,
    "figure4": figure4,
}


def main() -> None:
    """Reads the options, measures, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(KINDS):
        parser.error(f"--only takes some of {', '.join(KINDS)}; not {', '.join(sorted(unknown))}")
    options.out.mkdir(parents=True, exist_ok=True)
    be_quiet()
    known = options.out / "speed.json"
    found = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    for kind in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            setting = Setting(Path(folder))
            some = [one.as_dict() for one in KINDS[kind](setting, options.times)]
            setting.close()
        found[kind] = {"turns": some, **speed_page.about()}
        found = {one: found[one] for one in KINDS if one in found}
        known.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    speed_page.write(found, options.out)


if __name__ == "__main__":
    main()
