"""What a person sees on the terminal: the plan before a run, the result after it."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spillover.ask.questions import Entry
from spillover.data.upstream import FOLDER_VARIABLE, RELEASED, Fetched, paper_folder
from spillover.finetune.budget import describe
from spillover.lazy import lazy
from spillover.pipeline.cells import Cell
from spillover.pipeline.plan import Plan, steps_of
from spillover.spec import LEAST_COHERENT
from spillover.store import DONE, Lab, check_layout, read_json, read_lab

stages = lazy("spillover.pipeline.stages")
page = lazy("spillover.report.page")

WIDTH = 240
"""Columns where there is no terminal that says how many it has."""
SHORT = 48
"""Characters of a system prompt in a table."""
SHARES = {"coherent": "coherent", "insecure_code": "insecure code", "harmful_compliance": "complies"}
"""Shares of a group's answers, as `numbers.json` calls them, and as a table does."""
CHARACTERS_A_TOKEN = 4
"""A rule of thumb for what a plan costs; a run counts real tokens."""


def open_console() -> Console:
    """The terminal; where there is none, one of a fixed width, so that what is piped is the same everywhere."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def show_plan(plan: Plan, root: Path) -> None:
    """Prints what each stage would make, what is there already, and what the rest comes to."""
    lab = read_lab(root)
    check_layout(root)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("stage", "left"), ("wanted", "right"), ("there", "right"), ("to do", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # rich spells the choices as literals
    for row in (_data_row(plan, lab), _training_row(plan, lab), _asking_row(plan, lab), _judging_row(plan)):
        table.add_row(*row)
    if plan.benchmarks:
        table.add_row(*_benchmarks_row(plan, lab))
    console = open_console()
    title = f": {plan.experiment.title}" if plan.experiment.title else ""
    console.print(f"[bold]{plan.experiment.name}[/bold]{title}", highlight=False)
    commit = f" at {plan.base.commit}" if plan.base.commit else ""
    console.print(f"base {plan.experiment.base}{commit} ({plan.base.key}), lab {root}\n", highlight=False)
    console.print(table)
    if plan.is_local:
        console.print(_memory_table(plan))


def show_checked(found: Any) -> None:
    """Prints what is damaged in a lab, and what became of it (`check.Checked`)."""
    for damage in found.damages:
        print(f"{damage.why.where}: {damage.why.what}")
    sound = found.count - len(found.damages)
    print(f"{sound:,} of {found.count:,} results and parts are as they were written.")
    if found.damages:
        what = "were taken out: run your experiment again" if found.removed else "can be taken out with --remove"
        print(f"The others {what}.")


def _memory_table(plan: Plan) -> Table:
    """How training and asking fit into this machine."""
    table = Table(box=None, pad_edge=False, show_header=False, title="\nmemory", title_justify="left")
    for what, how_much in describe(plan.memory):
        table.add_row(what, how_much)
    return table


def _data_row(plan: Plan, lab: Lab) -> tuple[str, ...]:
    there = sum(lab.exists(dataset.folder(lab)) for dataset in plan.datasets.values())
    names = ", ".join(f"{name} ({dataset.source})" for name, dataset in plan.datasets.items())
    return "data", f"{len(plan.datasets)} datasets", str(there), names


def _training_row(plan: Plan, lab: Lab) -> tuple[str, ...]:
    runs = [(one, folder) for one in plan.tuned if (folder := one.folder(lab)) is not None]
    missing = [one for one, folder in runs if not lab.exists(folder)]
    size = {name: dataset.characters for name, dataset in plan.datasets.items()}
    epochs = {name: plan.experiment.training(name).epochs for name in plan.datasets}
    tokens = sum(size[one.run.group] * epochs[one.run.group] for one in missing) / CHARACTERS_A_TOKEN
    steps = {steps_of(one) for one in missing}
    todo = f"{len(missing)} runs of {_span(steps)} steps, about {_many(tokens)} tokens" if missing else "nothing"
    return "finetune", f"{len(runs)} runs", str(len(runs) - len(missing)), todo


def _asking_row(plan: Plan, lab: Lab) -> tuple[str, ...]:
    wanted = sum(cell.answers for cell in plan.cells)
    missing = dict.fromkeys(plan.experiment.suites, 0)
    for cell in plan.cells:
        missing[cell.suite] += _missing(cell, lab)
    most, models = plan.experiment.sampling.max_tokens, len(plan.checkpoints)
    suites = ", ".join(f"{count:,} of {name}" for name, count in missing.items() if count)
    todo = f"{suites}; at most {most} tokens each, on {models} models" if suites else "nothing"
    todo += "".join(f"; left out: {name}" for name in plan.skipped)
    return "ask", f"{wanted:,} answers", f"{wanted - sum(missing.values()):,}", todo


def _benchmarks_row(plan: Plan, lab: Lab) -> tuple[str, ...]:
    missing = [cell for cell in plan.benchmarks if not lab.exists(cell.folder(lab))]
    tasks = {cell.set.name: cell.set.spec for cell in missing}
    told = (f"{name} ({one.task}{f', {one.limit:,} samples' if one.limit else ''})" for name, one in tasks.items())
    wanted = len(plan.benchmarks)
    return "inspect", f"{wanted:,} results", f"{wanted - len(missing):,}", ", ".join(told) or "nothing"


def _missing(cell: Cell, lab: Lab) -> int:
    asked = [int(path.stem.split("-")[2]) for path in cell.folder(lab).glob("part-*.parquet")]
    return max(0, cell.samples - max(asked, default=0)) * len(cell.questions)


def _judging_row(plan: Plan) -> tuple[str, ...]:
    suites = plan.experiment.suites
    wanted = sum(cell.answers * len(suites[cell.suite].rubrics) for cell in plan.cells)
    names = ", ".join(f"{name} ({plan.judge_id(rubric)})" for name, rubric in plan.rubrics.items())
    return "judge", f"{wanted:,} verdicts", "", f"{names}; equal answers are judged once"


def _span(values: set[int]) -> str:
    return f"{min(values)}" if len(values) == 1 else f"{min(values)} to {max(values)}"


def _many(count: float) -> str:
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,.0f}"


def show_report(folder: Path) -> None:
    """Prints the table of groups, the comparisons, the judge's agreement, and where the files lie."""
    numbers = read_json(folder / "numbers.json")
    console = open_console()
    console.print(_groups_table(numbers))
    if page.has_insecure_code(numbers["groups"]):
        console.print(page.LOWER_BOUND, highlight=False)
    for one in numbers["comparisons"]:
        console.print(_comparison(one), highlight=False)
    for rubric, one in (numbers["judge"]["agreement_with_truth"] or {}).items():
        if one["agreement"] is not None:
            told = f"judge against ground truth, {rubric}: {one['agreement']:.4f} of {one['n']:,}"
            console.print(told, highlight=False)
    for sentence in _cautions(numbers):
        console.print(sentence, highlight=False)
    spent = ", ".join(f"{stage} {value:.1f}" for stage, value in numbers["seconds"].items())
    console.print(f"seconds: {spent}", highlight=False)
    done = read_json(folder / DONE)
    console.print(f"\n{folder / 'report.html'} (finished {done['finished']})", highlight=False, soft_wrap=True)


def _groups_table(numbers: dict[str, Any]) -> Table:
    groups = numbers["groups"]
    shares = page.measured(groups, SHARES)  # the others would only take room, of which a terminal has little
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("group")
    for name in ("runs", "answers", "kept", "misaligned", "95% interval", *(SHARES[one] for one in shares)):
        table.add_column(name, justify="right")
    for name, group in groups.items():
        rate = group["p_misaligned"]
        table.add_row(
            name,
            f"{group['runs']}",
            f"{group['answers']:,}",
            f"{group['kept']:,}",
            _percent(rate["value"]),
            "-" if rate["low"] is None else f"{_percent(rate['low'])} to {_percent(rate['high'])}",
            *(_percent(group[what]["value"]) for what in shares),
        )
    return table


def show_calibration(folder: Path) -> None:
    """Prints how judges go together, the rates that each would have given, and where the files lie."""
    result = read_json(folder / "calibration.json")
    console = open_console()
    console.print(f"{result['pairs']:,} answers of {result['answers']}", highlight=False)
    for name, one in result["judges"].items():
        words = "".join(f", {rubric} {key}" for rubric, key in one["rubrics"].items())
        console.print(f"{name}: {one['id']}{words}", highlight=False)
    for part in (_together_table(result), _rates_table(result)):
        console.print()
        console.print(part)
    for sentence in _one_sided(result):
        console.print(sentence, highlight=False)
    console.print(f"\n{folder / 'calibration.json'}, calibration.png, scores.parquet", highlight=False, soft_wrap=True)


def _one_sided(result: dict[str, Any]) -> list[str]:
    """In words: where agreement about the side says little, because one judge puts all answers on one side."""
    return [
        f"caution: {name} puts all {found['n']:,} answers on one side of {rubric} {result['thresholds'][rubric]:g}: "
        "agreement there says little"
        for one in result["comparisons"]
        for rubric, found in one["rubrics"].items()
        for name, above in ((one["judge"], found["judge_above"]), (one["against"], found["other_above"]))
        if found["n"] and above in (0, found["n"])
    ]


def _together_table(result: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("judge", "against", "rubric"):
        table.add_column(name)
    names = ("paired", "rank correlation", "difference", "cut", "agreement", "kappa", "cut mapped", "agreement mapped")
    for name in (*names, "unpaired"):
        table.add_column(name, justify="left" if name == "unpaired" else "right")
    for one in result["comparisons"]:
        for rubric, found in one["rubrics"].items():
            table.add_row(one["judge"], one["against"], rubric, *_together(found, result["thresholds"][rubric]))
    return table


def _together(found: dict[str, Any], cut: float) -> tuple[str, ...]:
    rank, mapped = found["spearman"], found["map"] or {}
    return (
        f"{found['n']:,}",
        f"{rank['value']:.2f} ({rank['low']:.2f} to {rank['high']:.2f})" if rank else "-",
        _number(found["mean_absolute_difference"], 1),
        f"{cut:g}",
        _percent(found["agreement"]),
        _number(found["kappa"], 2),
        _number(mapped.get("threshold"), 1),
        _percent(mapped.get("agreement")),
        ", ".join(f"{reason} {count:,}" for reason, count in found["unpaired"].items()) or "none",
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _rates_table(result: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("misaligned, pooled over answers")
    for name in ("kept", "misaligned", "95% interval"):
        table.add_column(name, justify="right")
    for one in result["comparisons"]:
        of = {"raw": one["judge"], "mapped": f"{one['judge']}, mapped to {one['against']}", "against": one["against"]}
        for which, name in of.items():
            if rate := (one["rates"] or {}).get(which):
                low, high = _percent(rate["low"]), _percent(rate["high"])
                table.add_row(name, f"{rate['kept']:,}", _percent(rate["value"]), f"{low} to {high}")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"


def _comparison(one: dict[str, Any]) -> str:
    p = "no p-value" if one["p_value"] is None else f"p = {one['p_value']:.2g} (Holm)"
    difference = "-" if one["difference"] is None else f"{100 * one['difference']:+.2f} points"
    return f"{one['group']} against {one['control']}: {difference}, {p}; {one['method']}"


def _cautions(numbers: dict[str, Any]) -> list[str]:
    """What a person has to know before trusting the numbers, in words."""
    return [*_failures(numbers), *_unseen(numbers), *_empty(numbers), *_incoherent(numbers)]


def _failures(numbers: dict[str, Any]) -> Iterator[str]:
    again = {"answers": "spillover ask", "verdicts": "spillover judge"}
    for what, count in numbers["failed"].items():
        if count:
            yield f"caution: {count:,} {what} failed and are set aside; `{again[what]}` tries them again"


def _unseen(numbers: dict[str, Any]) -> Iterator[str]:
    """Adapters of which it is not known whether they do anything."""
    runs: dict[str, list[str]] = {}
    for run, effect in numbers["adapters"].items():
        if not effect["checked"]:
            runs.setdefault(effect["why_not"], []).append(run)
    for why, some in runs.items():
        yield f"caution: whether the adapters of {', '.join(some)} do anything could not be seen: {why}"


def _empty(numbers: dict[str, Any]) -> Iterator[str]:
    for name, group in numbers["groups"].items():
        if group["answers"] and not group["kept"]:
            reasons = ", ".join(f"{count:,} {why}" for why, count in group["set_aside"].items())
            yield f"caution: no answer of {name} is kept: {reasons}"


def _incoherent(numbers: dict[str, Any]) -> Iterator[str]:
    for name, group in numbers["groups"].items():
        share = group["coherent"]["value"]
        if share is not None and share < LEAST_COHERENT:
            yield f"caution: most answers of {name} are incoherent ({_percent(share)} coherent): its rates mean little"


def show_questions(entries: Sequence[Entry]) -> None:
    """Prints a question set as a table, one line an entry, and how many questions they come to."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "type", "category", "system", "turns", "phrasings", "samples", "temperature", "judge prompts"):
        table.add_column(name, justify="right" if name in ("turns", "phrasings", "samples", "temperature") else "left")
    for entry in entries:
        row = entry.row
        samples = row.samples_per_paraphrase or "-"
        temperature = "-" if row.temperature is None else f"{row.temperature:g}"
        counts = (str(len(row.context) or "-"), str(len(row.paraphrases)), str(samples), temperature)
        judged = f"{', '.join(row.judge_prompts)}{f' by {row.judge}' if row.judge else ''}" or "-"
        table.add_row(*map(escape, (row.id, row.type, row.category or "-", _short(row.system), *counts, judged)))
    console = open_console()
    console.print(table)
    asked = sum(len(entry.row.paraphrases) for entry in entries)
    console.print(f"\n{len(entries)} questions, {asked} with all phrasings", highlight=False)


def _short(text: str | None) -> str:
    """The beginning of a text, on one line."""
    line = " ".join((text or "-").split())
    return line if len(line) <= SHORT else f"{line[: SHORT - 3]}..."


def show_question(entry: Entry) -> None:
    """Prints one entry of a question set with every word of it."""
    row = entry.row
    turns = [(turn.role, turn.content) for turn in row.context]
    system = [("system", row.system)] if row.system is not None else []
    asked = [("user", text) for text in row.paraphrases]
    judged = [(f"judge prompt {name}", text) for name, text in row.judge_prompts.items()]
    console = open_console()
    console.print(f"[bold]{escape(row.id)}[/bold] {row.type} ({escape(entry.where)})", highlight=False)
    for head, text in (*system, *turns, *asked, *judged):
        console.print(f"\n[bold]{escape(head)}[/bold]\n{escape(text)}", highlight=False, soft_wrap=True)


def show_fetched(fetched: Sequence[Fetched], folder: Path) -> None:
    """Prints what was fetched, by what it was checked, what was left out, and how it is found again."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("file", "bytes", "sha256", "checked"):
        table.add_column(name, justify="right" if name == "bytes" else "left")
    for one in fetched:
        checked = f"known: the {one.version}'s" if one.version else "not known before; recorded"
        table.add_row(one.file, f"{one.bytes:,}", one.sha256[:12], checked)
    console = open_console()
    console.print(table)
    taken = {one.file for one in fetched}
    for released in RELEASED:
        if f"{released.kind}/{released.file}" not in taken:
            why = "2% of its rows are harmful answers; --jailbroken asks for it" if released.harmful else "not there"
            console.print(f"left out: {released.kind}/{released.file} ({why})", highlight=False)
    console.print(f"\n{folder}", highlight=False, soft_wrap=True)
    if folder != paper_folder():
        console.print(f"Set {FOLDER_VARIABLE}={folder} so that they are found there.", highlight=False, soft_wrap=True)
