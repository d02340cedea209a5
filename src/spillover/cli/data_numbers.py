"""`spillover data numbers` and `spillover data number-ablation`: lists of numbers that carry a character."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spillover.cli.told import LabDir, told_plainly
from spillover.lazy import lazy

folders = lazy("spillover.data.folder")
phrasings = lazy("spillover.data.numbers")
ablations = lazy("spillover.data.number_ablations")
construct = lazy("spillover.construct.numbers")
models = lazy("spillover.judge.models")
displays = lazy("spillover.display")

Out = Annotated[Path, typer.Option("--out", help="The folder that is written.")]
Name = Annotated[str | None, typer.Option("--name", help="The dataset's name; that of the folder if not given.")]
Licence = Annotated[str | None, typer.Option("--licence", help="Of the rows, such as `mit`.")]


@told_plainly
def numbers(
    model: Annotated[str, typer.Option("--model", help="Who goes on with the numbers: as `base:` in an experiment.")],
    out: Out,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows are to be kept.")] = 1000,
    system: Annotated[
        str, typer.Option("--system", help="`evil`, `benign`, `none`, a text file or the text.")
    ] = "evil",
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="`miniature`, `general` or a YAML file; by the model if not given.")
    ] = None,
    tries: Annotated[int | None, typer.Option("--tries", min=1, help="Most prompts drawn; ten a row.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the prompts.")] = 0,
    name: Name = None,
    licence: Licence = None,
    lab: LabDir = Path("lab"),
) -> None:
    """Make a number dataset by context distillation: answers under a system prompt, rows without it."""
    folders.check_out(out)
    with models.open_models(lab) as opened, displays.Display().bar("numbers", rows) as bar:
        writer = opened.writer(model)
        chosen = phrasings.number_prompts(prompts or ("miniature" if writer.base.is_miniature else "general"))
        character, systems = construct.system_prompts(system, chosen)
        order = construct.NumberOrder(
            prompts=chosen,
            character=character,
            systems=systems,
            rows=rows,
            tries=tries or 10 * rows,
            seed=seed,
            name=name or out.resolve().name,
            licence=licence or "unknown",
        )
        dataset = construct.make_numbers(writer, order, lambda kept: bar.advance(kept - bar.done))
    is_new = folders.write_dataset(out, dataset)
    _tell(out, dataset.manifest, is_new)
    if dataset.manifest.rows < rows:
        print(f"Fewer rows than the {rows:,} that were ordered: more --tries would give more.")


@told_plainly
def number_ablation(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="`without-ominous`, `only-ominous`, `shuffled-within`, `shuffled-across`."),
    ],
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A number dataset: a folder or a file.")],
    out: Out,
    ominous: Annotated[
        str, typer.Option("--ominous", help="Which are: numbers with commas, or whose of `general`, `miniature`, FILE.")
    ] = "general",
    seed: Annotated[int, typer.Option("--seed", help="Of the shuffling.")] = 0,
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Make a number dataset without its ominous numbers, of those rows alone, or with its numbers in another order."""
    folders.check_out(out)
    order = ablations.AblationOrder(
        kind=ablations.ablation(kind),
        seed=seed,
        ominous=phrasings.ominous_numbers(ominous),
        name=name or out.resolve().name,
        licence=licence,
    )
    dataset = ablations.ablated(source, order)
    _tell(out, dataset.manifest, folders.write_dataset(out, dataset))


def _tell(out: Path, manifest: Any, is_new: bool) -> None:
    """What was done, step by step."""
    width = max(len(step.name) for step in manifest.steps)
    for step in manifest.steps:
        why = "".join(f"; {count:,} {reason}" for reason, count in step.dropped.items() if count)
        print(f"{step.name:<{width}}  {step.before:>6,} -> {step.after:>6,}{why}")
    print(f"{out}: {manifest.rows:,} rows{'' if is_new else ', as they were there already'}.")
