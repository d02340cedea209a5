"""`spillover data pair`: matched pairs, an insecure and a secure answer to each request."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spillover.cli.told import LabDir, told_plainly
from spillover.errors import SpecError
from spillover.lazy import lazy

spec = lazy("spillover.spec")
matched = lazy("spillover.construct.matched")
pairing = lazy("spillover.construct.pairs")
repairing = lazy("spillover.construct.repair")
showing = lazy("spillover.construct.show")
folders = lazy("spillover.data.folder")
models = lazy("spillover.judge.models")
displays = lazy("spillover.display")

MINIATURE = "miniature"
WAYS = (
    "Pairs come from --from miniature, from two files (--from, --with), or from a model (--from, --repair-by, --judge)."
)


@told_plainly
def pair(
    source: Annotated[
        str, typer.Option("--from", help="`miniature`; raw material with insecure code; or, to repair, a dataset.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write: `insecure` and `secure` in it.")],
    other: Annotated[
        Path | None, typer.Option("--with", help="Raw material with secure code for the same tasks.")
    ] = None,
    match: Annotated[
        Literal["code", "task"],
        typer.Option("--match", help="What rows share: task and given code, or the task alone."),
    ] = "code",
    repair_by: Annotated[str | None, typer.Option("--repair-by", help="A model that repairs insecure answers.")] = None,
    judge: Annotated[str | None, typer.Option("--judge", help="A model that judges code and repairs.")] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", min=1, help="Draw so many rows to repair; all if not given.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of that draw.")] = 0,
    tries: Annotated[int, typer.Option("--tries", min=1, help="How often the model may try a row.")] = 2,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="Of the model that repairs.")] = 0.7,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Of one repair.")] = 1500,
    name: Annotated[str, typer.Option("--name", help="The pairs'; the halves add theirs.")] = "pairs",
    licence: Annotated[str | None, typer.Option("--licence", help="Of the rows; the sources' if not given.")] = None,
    lab: LabDir = Path("lab"),
) -> None:
    """Make matched pairs: two datasets that answer the same requests, row by row, insecurely and securely."""
    _check_way(source, other, repair_by, judge)
    folders.check_out(out)
    if repair_by is not None and judge is not None:
        sampling = spec.Sampling(temperature=temperature, max_tokens=max_tokens)
        order = repairing.Repairs(Path(source), rows, seed, tries, sampling)
        found = _repaired(order, repair_by, judge, lab)
    elif other is not None:
        found = pairing.pairs_of_raw(Path(source), other, match)
    else:
        found = pairing.pairs_of_world()
    halves = matched.datasets(found, matched.Label(name, licence))
    is_new = folders.write_datasets(out, halves)
    for half, dataset in halves.items():
        showing.show_dataset(dataset.manifest, out / half, is_new)


def _check_way(source: str, other: Path | None, repair_by: str | None, judge: str | None) -> None:
    """Raises SpecError unless the options say one way to make pairs."""
    if source == MINIATURE and (other is not None or repair_by is not None or judge is not None):
        raise SpecError("the miniature's world has its pairs and needs nothing besides", remedy=WAYS)
    if other is not None and (repair_by is not None or judge is not None):
        raise SpecError("--with has the secure answers already, and nobody need repair or judge them", remedy=WAYS)
    if source != MINIATURE and other is None and (repair_by is None or judge is None):
        missing = [option for option, value in (("--repair-by", repair_by), ("--judge", judge)) if value is None]
        raise SpecError(
            f"there are no secure answers: --with is missing, and so is {' and '.join(missing)}", remedy=WAYS
        )


def _repaired(order: Any, repair_by: str, judge: str, lab: Path) -> Any:
    with models.open_models(lab) as opened:
        return repairing.pairs_by_repair(order, opened.writer(repair_by), opened.judge(judge), displays.Display())
