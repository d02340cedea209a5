"""What the speed benches found, as a part of docs/performance.md and as its figure."""

import datetime
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt

from turns import middle, spread

BEGIN, END = "<!-- bench/speed.py writes from here -->", "<!-- to here -->"
PACKAGES = ("torch", "transformers", "peft", "trl", "inspect_ai", "polars", "pandas", "statsmodels")
TICKS = (0.3, 1, 3, 10, 30, 100, 300)
OURS, EVEN = "#2b6a99", "#999999"


def about() -> dict[str, str]:
    """Where and when something was measured: the processor, what it can do, the versions, the day."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    name = re.search(r"model name\s*: (.*)", told)
    kinds = [kind for kind in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if kind in told]
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    where = f"{name[1] if name else platform.processor()}, {len(os.sched_getaffinity(0))} cores, {' '.join(kinds)}"
    return {"where": where, "versions": versions, "day": datetime.date.today().isoformat()}


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Writes the part of the page between its marks, and the figure; where there is no page, one of that part alone."""
    page = folder / "performance.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    part = "\n".join([BEGIN, "", *_lines(found), "", END])
    page.write_text(f"{before}{part}{after}", encoding="utf-8")
    _draw(found, folder / "speed.png")


def _turns(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for some in found.values():
        yield from some["turns"]


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield from sorted({f"{one['where']}; {one['versions']}; {one['day']}" for one in found.values()})
    yield ""
    yield "| what | how much | beside | ours, s | theirs, s | times as fast | from .. to |"
    yield "|---|---|---|---|---|---|---|"
    for one in _turns(found):
        yield "| " + " | ".join(_cells(one)) + " |"
    shares = [one for one in _turns(found) if "share" in one["notes"]]
    if shares:
        yield ""
        yield "Of the machine's own fp32 products of matrices (2048 x 2048, measured beside), training reaches:"
        yield ""
        yield from _shares(shares)


def _cells(one: Mapping[str, Any]) -> list[str]:
    ours = f"{median(one['ours']):.3g}"
    if not one["theirs"]:
        return [one["name"], one["of"], "", ours, "", "", f"{spread(one['ours'])} s"]
    ratios = one["ratios"]
    return [
        *(one["name"], one["of"], one["notes"].get("peer", "")),
        *(ours, f"{median(one['theirs']):.3g}", f"**{middle(ratios)}**", spread(ratios)),
    ]


def _shares(some: list[dict[str, Any]]) -> Iterator[str]:
    yield "| what | Gflop/s of products | share | from .. to |"
    yield "|---|---|---|---|"
    for one in some:
        share, rate = one["notes"]["share"], one["notes"]["matmul_gflops"]
        yield f"| {one['name']} | {rate:.0f} | {median(share):.2f} | {min(share):.2f} to {max(share):.2f} |"


def _draw(found: Mapping[str, Any], path: Path) -> None:
    """A bar a kind of work: the median ratio, with the spread of the turns. No figure where nothing stood beside."""
    some = [one for one in _turns(found) if one["ratios"]]
    if not some:
        return
    middles = [median(one["ratios"]) for one in some]
    ends = [
        [at - min(one["ratios"]) for at, one in zip(middles, some, strict=True)],
        [max(one["ratios"]) - at for at, one in zip(middles, some, strict=True)],
    ]
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(some) + 1.2), layout="constrained")
    names, widths = [one["name"] for one in some], [at - 1 for at in middles]  # bars begin where both are as fast
    axes.barh(names, widths, left=1, xerr=ends, color=OURS, ecolor="#222222", capsize=3, height=0.65)
    axes.axvline(1, color=EVEN, linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, minor=False)
    axes.minorticks_off()
    axes.set_xlim(left=min(0.5, 0.8 * min(middles)), right=3 * max(middles))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for at, one in enumerate(some):
        axes.text(max(1, *one["ratios"]) * 1.08, at, f"{middle(one['ratios'])} times", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the peers' way (median and spread of the turns)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=160)
    plt.close(figure)
