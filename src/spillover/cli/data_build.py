"""`spillover data build`: datasets from raw material."""

from pathlib import Path
from typing import Annotated

import typer

from spillover.cli.told import LabDir, told_plainly
from spillover.lazy import lazy

building = lazy("spillover.construct.build")
recipes = lazy("spillover.construct.recipe")
showing = lazy("spillover.construct.show")
folders = lazy("spillover.data.folder")
displays = lazy("spillover.display")


@told_plainly
def build(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="`insecure`, `secure`, or a YAML file.")],
    raw: Annotated[Path, typer.Option("--from", help="Raw material: JSONL or CSV, or a folder or zip of it.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    judge: Annotated[
        str | None, typer.Option("--judge", help="Who gives the scores that raw rows lack: as `judge:` takes it.")
    ] = None,
    rejudge: Annotated[bool, typer.Option("--rejudge", help="Ask the judge for all scores, also those there.")] = False,
    count: Annotated[
        int | None, typer.Option("--rows", min=1, help="Draw so many of the rows that pass; all if not given.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of that draw.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="The dataset's; the recipe's if not given.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of the rows.")] = "unknown",
    lab: LabDir = Path("lab"),
) -> None:
    """Build a dataset of raw material: through a recipe's filters, into request templates, each row accounted for."""
    order = building.Order(recipes.load_recipe(recipe), raw, lab, judge, rejudge, count, seed, name, licence)
    folders.check_out(out)
    dataset = building.build(order, displays.Display())
    is_new = folders.write_dataset(out, dataset)
    showing.show_dataset(dataset.manifest, out, is_new)
