"""The section on repetition: requests, answers and whole rows that are there twice, to the letter or nearly."""

from array import array
from collections.abc import Callable, Iterator

from spillover.audit.findings import Finding, Hits, Row, Section, fingerprint
from spillover.data.duplicates import near_duplicates
from spillover.report.page import percent

Rows = Callable[[], Iterator[Row]]
"""Begins to read a dataset anew."""
THRESHOLD = 0.8
PARTS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "requests": ("request", lambda row: row.request),
    "answers": ("answer", lambda row: row.answer),
    "pairs": ("request with its answer", lambda row: f"{row.request}\n\n{row.answer}"),
}


def repeated(rows: Rows) -> Section:
    """What is repeated within the dataset; a row counts if an earlier row has (nearly) the same."""
    findings = [finding for part in PARTS for finding in _of_part(rows, part)]
    shares = {one.name: one.share for one in findings}
    exact = [f"{PARTS[part][0]}s {percent(shares[f'exact_{part}'].value)}" for part in ("requests", "answers")]
    near = [f"{PARTS[part][0]}s {percent(shares[f'near_{part}'].value)}" for part in ("requests", "answers")]
    return Section(
        "duplicates",
        "Repetition",
        f"Repeated to the letter: {', '.join(exact)}. Nearly: {', '.join(near)}. Whole rows: "
        f"{shares['exact_pairs'].count:,} to the letter, {shares['near_pairs'].count:,} nearly.",
        "A row counts where an earlier one has the same. Nearly: runs of five characters with a Jaccard index of "
        f"{THRESHOLD} or more (candidates by MinHash); requests that share a long template are near each other.",
        tuple(findings),
        {"threshold": THRESHOLD},
    )


def _of_part(rows: Rows, part: str) -> list[Finding]:
    called, text_of = PARTS[part]
    earlier = near_duplicates((text_of(row) for row in rows()), THRESHOLD)
    lines, hits, first = array("L"), Hits(), dict[int, int]()
    for place, row in enumerate(rows()):
        lines.append(row.line)
        text = text_of(row)
        same = first.setdefault(fingerprint(text), place)
        name, other = (f"exact_{part}", same) if same != place else (f"near_{part}", earlier[place])
        if other is not None:
            hits.add(name, row.line, "row", f"as line {lines[other]}: {text}")
    abouts = {
        f"exact_{part}": f"The {called} of an earlier row",
        f"near_{part}": f"Nearly the {called} of an earlier row",
    }
    return list(hits.findings(abouts, len(lines)))
