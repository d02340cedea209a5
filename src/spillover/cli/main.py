"""The command line. It reads what a person wants, hands it to the pipeline, and shows what came out."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spillover.cli.data import data
from spillover.cli.told import LabDir, names, told_plainly
from spillover.lazy import lazy

spec = lazy("spillover.spec")
bases = lazy("spillover.finetune.base")
asking = lazy("spillover.ask.questions")
upstream = lazy("spillover.data.upstream")
displays = lazy("spillover.display")
planning = lazy("spillover.pipeline.plan")
running = lazy("spillover.pipeline.run")
showing = lazy("spillover.pipeline.show")
bases = lazy("spillover.finetune.base")
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
questions = typer.Typer(help="Question sets, the paper's and others.", no_args_is_help=True)
app.add_typer(questions, name="questions")
fetch = typer.Typer(help="Files that others have released.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")
app.add_typer(data, name="data")
judge = typer.Typer(cls=Judging, help=JUDGING, no_args_is_help=True)
app.add_typer(judge, name="judge")

Ref = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment (figure4) or a YAML file.")]
BaseRef = Annotated[str | None, typer.Option("--base", help="Another base: `miniature` or a Hugging Face folder.")]
Groups = Annotated[str | None, typer.Option("--groups", help="Only these groups, separated by commas.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Runs a group.")]
Samples = Annotated[int | None, typer.Option("--samples", min=1, help="Answers a question and run.")]

SetRef = Annotated[str, typer.Argument(metavar="SET", help="A question set by name (main, prereg, ...) or a file.")]


def _plan(ref: str, base: str | None, groups: str | None, seeds: int | None, samples: int | None) -> Any:
    experiment = spec.load_experiment(ref).narrowed(base=base, groups=names(groups), seeds=seeds, samples=samples)
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
    judges: Annotated[str, typer.Option("--judges", help="Judges by commas, as `judge:` takes them.")],
    reference: Annotated[
        Path | None, typer.Option("--reference", help="A CSV with scores of the same answers; else their own scores.")
    ] = None,
    rubrics: Annotated[str, typer.Option("--rubrics", help="By commas.")] = "alignment,coherence",
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")] = Path("calibration"),
    lab: Annotated[Path, typer.Option("--lab", help="Where requests to providers are kept.")] = Path("lab"),
) -> None:
    """Compare judges on the same answers: with each other, and with scores that are there."""
    made = calibrating.run_calibration(answers, names(judges), reference, names(rubrics), out, lab)
    showing.show_calibration(made)


def _entries(ref: str, base: str | None, only: tuple[str, ...] = ()) -> Any:
    """The entries of a question set as it is on a base; no base has to be there for a set that is not its own."""
    found = base is not None and Path(base).is_dir() and bases.find_base(base).is_miniature
    is_miniature = base in (None, spec.MINIATURE) or found
    return asking.entries_of(spec.Suite(questions=ref, only=only), is_miniature=is_miniature)


@questions.command("list")
@told_plainly
def list_questions(questions: SetRef, base: BaseRef = None) -> None:
    """List the questions of a set or file: what is asked, how often, and what a judge reads."""
    showing.show_questions(_entries(questions, base))


@questions.command("show")
@told_plainly
def show_question(
    questions: SetRef, id: Annotated[str, typer.Argument(metavar="ID", help="Of the question.")], base: BaseRef = None
) -> None:
    """Show one question in full: system prompt, context, phrasings, judge prompts."""
    showing.show_question(_entries(questions, base, (id,))[0])


@fetch.command("paper")
@told_plainly
def fetch_paper(
    source: Annotated[Path | None, typer.Option("--from", help="Take the files from this folder.")] = None,
    to: Annotated[Path | None, typer.Option("--to", help="Put them here, and not into the cache folder.")] = None,
    jailbroken: Annotated[
        bool, typer.Option("--jailbroken", help="Also the jailbroken set: 2% of its rows are harmful answers.")
    ] = False,
) -> None:
    """Take the paper's datasets and questions from the authors' repository or a folder, and check them."""
    folder = to or upstream.paper_folder()
    track = displays.Display().track
    fetched = upstream.fetch_paper(folder, source, jailbroken=jailbroken, track=lambda files: track("fetch", files))
    showing.show_fetched(fetched, folder)


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
