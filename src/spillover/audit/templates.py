"""The section on request templates: how often requests say the same thing round what differs."""

from itertools import islice

from spillover.audit.duplicates import Rows
from spillover.audit.findings import Section, counted, share, shortened
from spillover.audit.masking import quoted
from spillover.audit.phrasing import SLOT, request_templates
from spillover.report.page import percent

LISTED = 40
MOST = 10_000
"""Requests that are looked at, from the first on: enough for any share, and memory stays flat."""
PATTERN = 300
"""Characters of a template that are shown."""


def templates(rows: Rows) -> Section:
    """The templates of the requests and how many rows have each."""
    requests = [row.request for row in islice(rows(), MOST)]
    of = len(requests)
    found = [one for one in request_templates(requests) if one.pattern != SLOT]
    covered = share(sum(one.rows for one in found), of)
    listed = [
        {"pattern": shortened(quoted(one.pattern), PATTERN), "share": share(one.rows, of)} for one in found[:LISTED]
    ]
    most = f"; the most frequent has {percent(found[0].rows / of)}" if found else ""
    return Section(
        "templates",
        "Request templates",
        f"{counted(len(found), 'template')} in {percent(covered.value)} of the requests{most}.",
        f"Wordings that many requests share, with what differs left out; of the first {of:,} requests.",
        (),
        {"requests": of, "templates": len(found), "covered": covered, "listed": listed},
    )
