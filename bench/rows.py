"""What a report of many rows takes, and what its statistics take beside plain pandas.

python bench/rows.py [--rows 100000,1000000,10000000] [--pandas 1000000] [--in FOLDER]

Writes a lab of synthetic answers and verdicts as the pipeline would (`synthetic.py`; ten million take minutes, 6 GB).
Then it runs the command line on it, each command in a process of its own, and prints its seconds and the most memory
that it had.
Up to `--pandas` rows the headline's rates, intervals and other thresholds are also computed by plain pandas on the same
rows, and must come out the same; statsmodels' exact interval stands beside ours where it is installed.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl

from spillover.measure.metrics import measure
from spillover.measure.stats import clopper_pearson
from spillover.measure.sweep import MISALIGNED_BELOW, sweep
from spillover.measure.tally import tally
from spillover.spec import Experiment, load_experiment
from synthetic import RUN, write_experiment, write_lab

FILTER = "group = 'insecure' AND alignment < 30 AND answer LIKE '%human%'"
NARROW = ("group", "run", "suite", "question", "outcome", "alignment", "coherence")
TIMES = 3
"""The statistics are computed so often on either side; the fastest counts."""


def main() -> None:
    """Prints a line a command for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,1000000,10000000")
    parser.add_argument("--pandas", type=int, default=1_000_000)
    parser.add_argument("--in", dest="folder", type=Path)
    asked = parser.parse_args()
    os.environ |= {"LOCAL_API_KEY": "none", "LOCAL_BASE_URL": "http://127.0.0.1:9"}  # nobody is asked
    for rows in map(int, asked.rows.split(",")):
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            _measured(Path(folder), rows, compare=rows <= asked.pandas)


def _measured(folder: Path, rows: int, *, compare: bool) -> None:
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
    if compare:
        _compared(pl.read_parquet(report / "answers.parquet"), load_experiment(str(experiment)))


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


def _compared(answers: pl.DataFrame, experiment: Experiment) -> None:
    """Prints how long the same statistics take here and by plain pandas, of rows that are in memory on both sides."""
    ours, theirs = answers.with_columns(_unused()), answers.select(NARROW).to_pandas()
    one, mine = _fastest(lambda: _of_spillover(ours, experiment))
    other, plain = _fastest(lambda: _of_pandas(theirs, experiment))
    assert _alike(mine, plain), "both have computed the same"
    print(f"  statistics {one:.2f} s, by plain pandas {other:.2f} s: {other / one:.1f} times as long")
    if importlib.util.find_spec("statsmodels") is not None:
        _beside_statsmodels()


def _unused() -> list[pl.Expr]:
    return [pl.lit(None, pl.String).alias(f"{rubric}_table") for rubric in ("alignment", "coherence")]


def _fastest(work: Callable[[], Any]) -> tuple[float, Any]:
    seconds = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds), found


Found = dict[str, dict[str, tuple[float | None, float | None, float | None]]]
"""Group to what is measured to its rate and the ends of its interval."""


def _of_spillover(answers: pl.DataFrame, experiment: Experiment) -> Found:
    counted = tally(answers, ("alignment", "coherence"), experiment.thresholds)
    groups, moved = measure(counted, experiment).groups, sweep(counted, experiment)["misaligned"]
    return {
        name: {
            "all": _ends(one["p_misaligned"]),
            **{question: _ends(some["p_misaligned"]) for question, some in one["questions"].items()},
            **{f"below {cut}": _ends(some[name]) for cut, some in moved.items()},
        }
        for name, one in groups.items()
    }


def _alike(mine: Found, plain: Found) -> bool:
    """Whether two findings are the same up to the last digits, which depend on the order of a sum."""
    pairs = [(mine[group][told], plain[group][told]) for group in mine for told in mine[group]]
    return all(np.allclose(np.array(a, float), np.array(b, float), rtol=1e-12, equal_nan=True) for a, b in pairs)


def _ends(rate: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    return rate["value"], rate["low"], rate["high"]


def _of_pandas(answers: Any, experiment: Experiment) -> Found:
    """The headline's rates as a notebook would have them: columns of booleans, groupby, mean, bootstrap over runs."""
    main = answers[answers["suite"] == experiment.headline]
    kept = main[(main["coherence"] >= experiment.thresholds.coherent) & main["alignment"].notna()]
    cuts = {f"below {cut:g}": cut for cut in MISALIGNED_BELOW}
    hits = pd.DataFrame(
        {
            "all": kept["alignment"] < experiment.thresholds.misaligned,
            **{told: kept["alignment"] < cut for told, cut in cuts.items()},
        }
    )
    by_run = hits.groupby([kept["group"], kept["run"]]).mean()
    sizes = kept.groupby(["group", "run"]).size()
    by_question = hits["all"].groupby([kept["group"], kept["question"], kept["run"]]).agg(["mean", "size"])
    return {
        name: {
            "all": _interval(by_run.loc[name, "all"], sizes.loc[name]),
            **{question: _interval(*_columns(by_question, name, question)) for question in main["question"].unique()},
            **{told: _interval(by_run.loc[name, told], sizes.loc[name]) for told in cuts},
        }
        for name in main["group"].unique()
    }


def _columns(by_question: Any, group: str, question: str) -> tuple[Any, Any]:
    some = by_question.loc[(group, question)]
    some = some[some["size"] >= 5]
    return some["mean"], some["size"]


def _interval(rates: Any, sizes: Any) -> tuple[float | None, float | None, float | None]:
    values = rates.to_numpy()
    if not len(values):
        return None, None, None
    if np.ptp(values) <= 1e-12:
        return float(np.average(values)), *clopper_pearson(float(values[0] * sizes.mean()), float(sizes.mean()))
    drawn = np.random.default_rng(0).integers(0, len(values), size=(2000, len(values)))
    low, high = np.percentile(values[drawn].sum(axis=1) / len(values), [2.5, 97.5])
    return float(np.average(values)), float(low), float(high)


def _beside_statsmodels() -> None:
    proportion = importlib.import_module("statsmodels.stats.proportion")
    one, mine = _fastest(lambda: [clopper_pearson(hits, 5000) for hits in range(500)])
    other, plain = _fastest(lambda: [proportion.proportion_confint(h, 5000, method="beta") for h in range(500)])
    assert np.allclose(mine, plain)
    print(f"  500 exact intervals {one:.2f} s, by statsmodels {other:.2f} s: {other / one:.1f} times as long")


if __name__ == "__main__":
    main()
