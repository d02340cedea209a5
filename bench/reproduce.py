"""The whole paper from an empty lab, timed, and again with everything there; prints Markdown.

    python bench/reproduce.py LAB [--only A,B]

Seconds of a stage are those of its results, each counted once: experiments share checkpoints, answers and verdicts.
A fleet's seconds are divided among its runs. What is left of the wall clock is planning, loading the libraries,
measuring, figures and pages.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

from spillover.finetune.cpu import computed_in
from spillover.pipeline.parts import SECONDS, seconds_of

STAGES = ("data", "finetune", "ask", "choose", "inspect", "judge")
GIB = 2**30


def reproduce(lab: Path, only: str | None) -> float:
    """Runs the command as a user does; returns how long it took, in seconds."""
    command = [sys.executable, "-m", "spillover.cli", "reproduce", "--lab", str(lab)]
    began = time.monotonic()
    subprocess.run([*command, *(["--only", only] if only else [])], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def stage_seconds(lab: Path) -> dict[str, float]:
    """Seconds by stage and by the result's own name (`finetune/insecure-s0`), from what the lab keeps."""
    found: dict[str, float] = defaultdict(float)
    for stage in STAGES:
        for done in (lab / stage).glob("*/done.json"):
            notes = json.loads(done.read_text(encoding="utf-8"))
            found[f"{stage}/{done.parent.name.rpartition('-')[0]}"] += notes.get(SECONDS, 0.0)
        for part in (lab / stage).rglob("part-*.parquet"):
            found[f"{stage}/{part.parent.name.rpartition('-')[0]}"] += seconds_of(part)
    return found


def counts(lab: Path) -> dict[str, int]:
    """How many results of each stage there are."""
    return {stage: sum(1 for one in (lab / stage).glob("*") if one.is_dir()) for stage in STAGES}


def size(lab: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in lab.rglob("*") if path.is_file())


def table(lab: Path, wall: float) -> str:
    """Stages with results, seconds and share of the wall clock."""
    spent = stage_seconds(lab)
    sums = {stage: sum(some for name, some in spent.items() if name.startswith(f"{stage}/")) for stage in STAGES}
    sums["the rest"] = wall - sum(sums.values())
    there = counts(lab)
    rows = [f"| {stage} | {there.get(stage, '')} | {some:,.0f} | {some / wall:.0%} |" for stage, some in sums.items()]
    head = "| stage | results | seconds | share |\n|---|---|---|---|"
    return "\n".join([head, *rows, f"| **wall clock** | | **{wall:,.0f}** | |"])


def groups(lab: Path, most: int = 12) -> str:
    """The groups whose results took longest, all stages together."""
    found: dict[str, float] = defaultdict(float)
    for name, some in stage_seconds(lab).items():
        found[re.split(r"-s\d+(?=[-@]|$)", name.partition("/")[2])[0]] += some
    return "\n".join(
        f"| {name} | {some:,.0f} |" for name, some in sorted(found.items(), key=lambda one: -one[1])[:most]
    )


def machine() -> str:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    told = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    precision = computed_in("bf16", on_card=False)
    return f"{len(names)} x {names[0] if names else platform.processor()}, {precision}; {told}"


def main() -> None:
    """Runs it twice and prints both."""
    parser = argparse.ArgumentParser(description="The whole paper, timed.")
    parser.add_argument("lab", type=Path, help="a folder that is not there yet")
    parser.add_argument("--only", help="experiments, by name")
    options = parser.parse_args()
    if options.lab.exists():
        parser.error(f"{options.lab} is there already")
    wall = reproduce(options.lab, options.only)
    print(f"{machine()}\n\n{table(options.lab, wall)}\n\n| group | seconds |\n|---|---|\n{groups(options.lab)}\n")
    print(f"lab: {size(options.lab) / GIB:.2f} GiB; again with everything there: ", end="", flush=True)
    print(f"{reproduce(options.lab, options.only):.1f} s")


if __name__ == "__main__":
    main()
