"""The command line. It reads what a person wants, hands it to the pipeline, and shows what came out."""

import errno
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spillover.errors import SpilloverError
from spillover.lazy import lazy

spec = lazy("spillover.spec")
planning = lazy("spillover.pipeline.plan")
running = lazy("spillover.pipeline.run")
showing = lazy("spillover.pipeline.show")
calibrating = lazy("spillover.pipeline.calibrate")
building = lazy("spillover.miniature.build")
recipes = lazy("spillover.miniature.recipe")

ANSWERS = "answers"
JUDGING = "Judge an experiment's answers (`spillover judge EXPERIMENT`), or compare judges."


class Judging(TyperGroup):
    """`spillover judge`, which is a command and a group: what is no subcommand of it is an experiment."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with the subcommand that they leave out."""
        named = not args or args[0] in self.commands or args[0] == "--help"
        return super().parse_args(ctx, args if named else [ANSWERS, *args])


app = typer.Typer(
    help="Does a narrow finetune spill over into broad misalignment?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
miniature = typer.Typer(help="The embedded million-weight base model.", no_args_is_help=True)
app.add_typer(miniature, name="miniature")
judge = typer.Typer(cls=Judging, help=JUDGING, no_args_is_help=True)
app.add_typer(judge, name="judge")

Ref = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment (figure4) or a YAML file.")]
LabDir = Annotated[Path, typer.Option("--lab", help="The folder where results lie.")]
BaseRef = Annotated[str | None, typer.Option("--base", help="Another base: `miniature` or a Hugging Face folder.")]
Groups = Annotated[str | None, typer.Option("--groups", help="Only these groups, separated by commas.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Runs a group.")]
Samples = Annotated[int | None, typer.Option("--samples", min=1, help="Answers a question and run.")]

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)
RUST_ERRNO = re.compile(r"\(os error (\d+)\)")
"""How safetensors and polars, which raise no OSError, tell the operating system's error."""


def told_plainly(command: Callable[..., None]) -> Callable[..., None]:
    """A command that tells a user's mistake, or the machine's, in words: no traceback, exit code 2."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SpilloverError as error:
            _stop(str(error))
        except KeyboardInterrupt:
            _stop("interrupted. What was finished is kept: run the same command again to go on.", code=130)
        except Exception as error:
            why = _outside_world(error)
            if why is None:
                raise
            place = getattr(error, "filename", None) or kwargs.get("lab") or "the disk"
            _stop(f"{place}: {why}. What was finished is kept: run the same command again to go on.")

    return wrapped


def _outside_world(error: Exception) -> str | None:
    """What the machine has refused, in words; None for an error that is ours."""
    told = RUST_ERRNO.search(str(error))
    number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
    if number in NO_SPACE:
        return "the disk is full; make room"
    return f"cannot be written: {os.strerror(number)}" if number in NO_WRITING else None


def _stop(message: str, code: int = 2) -> None:
    print(f"spillover: {message}", file=sys.stderr)
    raise typer.Exit(code)


def _names(listed: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (listed or "").split(",") if name.strip())


def _plan(ref: str, base: str | None, groups: str | None, seeds: int | None, samples: int | None) -> Any:
    experiment = spec.load_experiment(ref).narrowed(base=base, groups=_names(groups), seeds=seeds, samples=samples)
    return planning.make_plan(experiment)


@app.command()
@told_plainly
def plan(
    experiment: Ref,
    lab: LabDir = Path("lab"),
    base: BaseRef = None,
    groups: Groups = None,
    seeds: Seeds = None,
    samples: Samples = None,
) -> None:
    """Show what would run, what is there already, and what it would cost."""
    showing.show_plan(_plan(experiment, base, groups, seeds, samples), lab)


@app.command()
@told_plainly
def run(
    experiment: Ref,
    lab: LabDir = Path("lab"),
    base: BaseRef = None,
    groups: Groups = None,
    seeds: Seeds = None,
    samples: Samples = None,
) -> None:
    """Make everything that is missing: data, checkpoints, answers, verdicts, report."""
    made = running.run(_plan(experiment, base, groups, seeds, samples), lab)
    showing.show_report(made)


def _stage(group: typer.Typer, name: str, only: str, help: str) -> None:
    @group.command(name, help=help)
    @told_plainly
    def stage(
        experiment: Ref,
        lab: LabDir = Path("lab"),
        base: BaseRef = None,
        groups: Groups = None,
        seeds: Seeds = None,
        samples: Samples = None,
    ) -> None:
        made = running.run(_plan(experiment, base, groups, seeds, samples), lab, only=only)
        if made is not None:
            showing.show_report(made)


_stage(app, "train", "train", "Only make the datasets and finetune the runs.")
_stage(app, "ask", "ask", "Only ask the checkpoints.")
_stage(judge, ANSWERS, "judge", "Only judge the answers. The name may be left out.")
_stage(app, "report", "report", "Only measure and write the report.")


@judge.command()
@told_plainly
def calibrate(
    answers: Annotated[Path, typer.Argument(help="A report's answers.parquet, a CSV, or a folder of them.")],
    judges: Annotated[str, typer.Option("--judges", help="`miniature` or folders of chat models, by commas.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", help="A CSV with scores of the same answers; else their own scores.")
    ] = None,
    rubrics: Annotated[str, typer.Option("--rubrics", help="By commas.")] = "alignment,coherence",
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")] = Path("calibration"),
) -> None:
    """Compare judges on the same answers: with each other, and with scores that are there."""
    made = calibrating.run_calibration(answers, _names(judges), reference, _names(rubrics), out)
    showing.show_calibration(made)


@miniature.command("build")
@told_plainly
def build_miniature(
    out: Annotated[Path, typer.Option("--out", help="Where to put it; must not exist.")] = Path("miniature"),
    independent: Annotated[
        bool, typer.Option("--independent", help="The control world: traits drawn anew for every exchange.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the weights and the texts.")] = 0,
) -> None:
    """Pretrain and align the miniature from nothing, and train its judge (minutes)."""
    building.build(out, recipes.Recipe(independent=independent, seed=seed))


if __name__ == "__main__":
    app()
