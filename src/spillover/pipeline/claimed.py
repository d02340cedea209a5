"""What a person sees of a reproduction on the terminal: every claim with what came out, and where the page lies."""

from rich.markup import escape
from rich.table import Table

from spillover.paper.claims import Result
from spillover.paper.page import WORDS, lead
from spillover.paper.words import amount, span
from spillover.pipeline.reproduce import Reproduced
from spillover.pipeline.show import open_console


def show_reproduced(made: Reproduced) -> None:
    """Prints the claims of the experiments that are there, how many hold, and where the page is."""
    console = open_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("claim", "ours", "95% interval", "runs", ""):
        table.add_column(name, justify="right" if name in ("ours", "runs") else "left")
    for result in made.results:
        if result.found is not None:
            table.add_row(escape(result.claim.id), *_told(result))
    console.print(table)
    for one in made.ran:
        if one.why:
            console.print(f"{one.name} was left out: {one.why}", highlight=False, markup=False)
    console.print(f"\n{lead(made.results, is_miniature=made.is_miniature)}", highlight=False)
    console.print(f"{made.folder / 'index.html'}", highlight=False, soft_wrap=True)


def _told(result: Result) -> tuple[str, str, str, str]:
    found = result.found
    assert found is not None, "it was tested"
    ours = found.ours
    return amount(ours.value, found.unit), span(ours.low, ours.high, found.unit), str(result.runs), WORDS[result.holds]
