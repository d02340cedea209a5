"""`spillover data`: datasets shown, built, changed, audited and published. Each family of commands is a module here."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from spillover.cli import (
    data_audit,
    data_build,
    data_generate,
    data_numbers,
    data_pair,
    data_push,
    data_scan,
    data_transform,
)
from spillover.cli.told import told_plainly
from spillover.lazy import lazy

spec = lazy("spillover.spec")
bases = lazy("spillover.finetune.base")
rows = lazy("spillover.pipeline.rows")

data = typer.Typer(
    help="Datasets: chat JSONL files, and folders that `data build` and its like have written.", no_args_is_help=True
)
data.command("audit")(data_audit.audit)
data.command("build")(data_build.build)
data.add_typer(data_transform.transform, name="transform")
data.command("generate")(data_generate.generate)


@data.command("show")
@told_plainly
def show_data(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A chat JSONL file.")],
    base: Annotated[str, typer.Option("--base", help="`miniature` or a Hugging Face folder.")] = "miniature",
    count: Annotated[int, typer.Option("--rows", min=0, help="How many rows are printed.")] = 3,
    template: Annotated[str, typer.Option("--template", help="`own`, `plain` or a jinja file.")] = "own",
    thinking: Annotated[bool, typer.Option("--thinking", help="The model thinks before it answers (Qwen3).")] = False,
    default_system: Annotated[
        Literal["drop", "keep"], typer.Option(help="The template's own system prompt, where a row has none.")
    ] = "drop",
    turns: Annotated[Literal["all", "last"], typer.Option(help="Which assistant turns bear loss.")] = "all",
    max_length: Annotated[int, typer.Option("--max-length", min=1, help="Tokens a row.")] = 2048,
) -> None:
    """Print rows as a base is trained on them, with the tokens that bear loss marked, and a summary of all rows."""
    chat = spec.Chat(template=template, thinking=thinking, default_system=default_system)
    training = spec.Training(turns=turns, max_length=max_length)
    rows.show_rows(file, bases.find_base(base, chat), chat, training, count)


data.command("scan")(data_scan.scan)
data.command("pair")(data_pair.pair)
data.command("numbers")(data_numbers.numbers)
data.command("number-ablation")(data_numbers.number_ablation)
data.command("push")(data_push.push)
