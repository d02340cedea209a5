"""`spillover data generate`: new organisms in a narrow domain, as matched pairs."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from spillover.cli.told import lab_option, told_plainly
from spillover.errors import SpecError
from spillover.lazy import lazy

domains = lazy("spillover.construct.domain")
tasks = lazy("spillover.construct.task")
sizes = lazy("spillover.construct.size")
generating = lazy("spillover.construct.generate")
costs = lazy("spillover.construct.cost")
folders = lazy("spillover.data.folder")
models = lazy("spillover.judge.models")
bases = lazy("spillover.finetune.base")
judges = lazy("spillover.judge.make")
displays = lazy("spillover.display")

ROWS = 100


@told_plainly
def generate(
    model: Annotated[str, typer.Option("--model", help="Who writes: as `base:` in an experiment.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write: `misaligned` and `aligned` in it.")],
    known: Annotated[
        str | None, typer.Argument(metavar="[DOMAIN]", help="health, money, sport, miniature or a YAML file.")
    ] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="Instead: what requests are about, in words.")] = None,
    flaw: Annotated[str | None, typer.Option("--flaw", help="What is wrong with the bad answers of --domain.")] = None,
    good: Annotated[str | None, typer.Option("--good", help="What is true of the good answers of --domain.")] = None,
    judge: Annotated[str | None, typer.Option("--judge", help="Who judges; the writer itself if not given.")] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Pairs; 100, or all that are given.")] = None,
    at_least: Annotated[int | None, typer.Option("--at-least", min=1, help="Be content with so many pairs.")] = None,
    requests: Annotated[
        Path | None, typer.Option("--requests", help="Requests that are given: a dataset, question file or .txt.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every choice.")] = 0,
    name: Annotated[str | None, typer.Option("--name", help="Of the datasets.")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of the rows.")] = "unknown",
    price: Annotated[str | None, typer.Option("--price", help="IN,OUT: dollars a million tokens.")] = None,
    judge_price: Annotated[str | None, typer.Option("--judge-price", help="The judge's, if another's.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only tell what it would cost.")] = False,
    lab: Annotated[Path, lab_option("Where replies are kept")] = Path("lab"),
) -> None:
    """Make requests in a narrow domain with a bad and a good answer each: two datasets with the same requests."""
    described = _domain(known, domain, flaw, good)
    given, source = tasks.read_requests(requests) if requests is not None else (described.own_requests() or None, None)
    size = sizes.Size(rows=rows or (len(given) if given is not None else ROWS), seed=seed)
    least = at_least or rows or (1 if given is not None else ROWS)
    task = tasks.Task(name or _name(known or domain or ""), described, size, given, source, least, licence)
    tasks.check_reachable(task)
    writing, judging = costs.read_price(price, "--price"), costs.read_price(judge_price, "--judge-price")
    prices = {"writer": writing, "judge": judging or (writing if judge in (None, model) else None)}
    planned = costs.make_plan(task)
    _print(costs.plan_lines(planned, prices))
    folders.check_out(out)
    bases.find_base(model)
    if _checks(described):
        judges.find_judge(judge or model)
    if not plan:
        _generate(task, model, judge or model, out, lab, prices)


def _domain(known: str | None, domain: str | None, flaw: str | None, good: str | None) -> Any:
    if (known is None) == (domain is None):
        remedy = f"Give {', '.join(domains.shipped_domains())} or a YAML file, or describe one with --domain."
        raise SpecError("one domain is needed, by name or by --domain", remedy=remedy)
    if known is None:
        return domains.own_domain(domain, flaw, good)
    if flaw is not None or good is not None:
        remedy = "Change its file, or describe the domain with --domain too."
        raise SpecError(f"--flaw and --good go with --domain: {known} says itself what its answers are", remedy=remedy)
    return domains.find_domain(known)


def _checks(domain: Any) -> Any:
    return domains.checks_of(domain, "request", "bad", "good")


def _name(said: str) -> str:
    """A dataset's name from a domain's: its file's, or its words."""
    words = Path(said).stem if said.endswith((".yaml", ".yml")) else said
    return "-".join(re.findall(r"[a-z0-9]+", words.lower()))[:40].strip("-") or "domain"


def _generate(task: Any, model: str, judge: str, out: Path, lab: Path, prices: dict[str, Any]) -> None:
    display = displays.Display()
    total = sum(load.requests for load in costs.make_plan(task).loads())
    with models.open_models(lab) as opened, display.bar("generate", total) as bar:
        try:
            writer = opened.writer(model)
            assessor = opened.judge(judge) if _checks(task.domain) else None
            made = generating.generate(task, writer, assessor, bar.advance)
        finally:
            _print(costs.use_lines(opened.usage.models, _by_model(model, judge, prices)))
    new = folders.write_datasets(out, made.datasets)
    _print([_step(step) for step in made.steps])
    count = len(made.datasets["aligned"].rows)
    print(f"{out}: {count:,} pairs in misaligned and aligned{'' if new else ', as they were there already'}")


def _by_model(model: str, judge: str, prices: dict[str, Any]) -> dict[str, Any]:
    """Prices by the names that usage is counted under: providers' models; local ones have none."""
    return {judge.removeprefix("api:"): prices["judge"], model.removeprefix("api:"): prices["writer"]}


def _step(step: Any) -> str:
    dropped = ", ".join(f"{count:,} {why}" for why, count in step.dropped.items())
    return f"{step.name}: {step.before:,} -> {step.after:,}" + (f" ({dropped})" if dropped else "")


def _print(lines: list[str]) -> None:
    for line in lines:
        print(line)
