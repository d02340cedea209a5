"""The claims of a reproduction as a Markdown table: `python bench/claims.py lab/paper/claims.json [ID ...]`."""

import json
import sys
from pathlib import Path
from typing import Any

from spillover.paper.words import amount, span

SIGNS = {True: "holds", False: "**does not**", None: "not tested"}


def main() -> None:
    """Prints the table, of all claims or of those that are named, in the order of the names."""
    file, *names = sys.argv[1:]
    claims = {claim["id"]: claim for claim in json.loads(Path(file).read_text(encoding="utf-8"))}
    print("| claim | published | ours, 95% interval | runs | |\n|---|---|---|---|---|")
    for name in names or claims:
        print(_row(claims[name]))


def _row(claim: dict[str, Any]) -> str:
    ours, unit = claim["ours"], claim.get("unit", "share")
    told = (
        f"{amount(ours['value'], unit)} ({span(ours['low'], ours['high'], unit)})" if ours["value"] is not None else "-"
    )
    return f"| {claim['claim']} | {claim['paper']} | {told} | {claim['runs']} | {SIGNS[claim['holds']]} |"


if __name__ == "__main__":
    main()
