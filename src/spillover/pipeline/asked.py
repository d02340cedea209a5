"""What a person sees of variants, and of questions under one, on the terminal."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from spillover.ask.variants import VariantKind, system_prompts
from spillover.pipeline.show import open_console
from spillover.records import Question

TEXT = 72
"""Characters of a text in a table."""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in ("turns", "temperature") else "left")
    return table


def show_variants(kinds: Sequence[VariantKind]) -> None:
    """Prints the kinds of variants with what they do and their settings, and the system prompts that have a name."""
    table, prompts = _table("variant", "settings", "what it does"), _table("prompt", "text")
    for one in kinds:
        settings = ", ".join(name if needed else f"[{name}]" for name, needed in one.settings.items())
        table.add_row(*map(escape, (one.kind, settings or "-", one.about)))
    for name, text in system_prompts().items():
        prompts.add_row(name, escape(text) if text is not None else "(no system prompt)")
    console = open_console()
    console.print(table)
    console.print(
        "\nSettings in brackets can be left out; each variant also takes a `name`.", highlight=False, markup=False
    )
    console.print("\nsystem prompts by name", style="bold")
    console.print(prompts)


def show_asked(questions: Sequence[Question]) -> None:
    """Prints questions as they are asked, one line each."""
    table = _table("id", "system", "turns", "temperature", "text")
    for one in questions:
        temperature = "-" if one.temperature is None else f"{one.temperature:g}"
        texts = (
            _short(one.system or "-", TEXT // 2),
            str(len(one.context) or "-"),
            temperature,
            _short(one.text, TEXT),
        )
        table.add_row(*map(escape, (one.id, *texts)))
    console = open_console()
    console.print(table)
    console.print(f"\n{len(questions)} questions", highlight=False)


def _short(text: str, most: int) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."


def show_asked_in_full(questions: Sequence[Question]) -> None:
    """Prints questions with every word that a model is sent, and what a judge reads where that is something else."""
    console = open_console()
    for one in questions:
        console.print(f"[bold]{escape(one.id)}[/bold]", highlight=False)
        judged = [("a judge reads", one.read)] if one.plain is not None else []
        for head, text in (*((turn["role"], turn["content"]) for turn in one.messages()), *judged):
            console.print(f"\n[bold]{head}[/bold]\n{escape(text)}", highlight=False, soft_wrap=True)
        if one.temperature is not None:
            console.print(f"\n[bold]temperature[/bold]\n{one.temperature:g}", highlight=False)
        console.print()
