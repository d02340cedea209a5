"""The command line. It reads what a person wants, hands it to the pipeline, and shows what came out."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from spillover.cli.answers import answers
from spillover.cli.data import data
from spillover.cli.logs import export, imports
from spillover.cli.told import LabDir, lab_option, names, told_plainly
from spillover.lazy import lazy

spec = lazy("spillover.spec")
bases = lazy("spillover.finetune.base")
asking = lazy("spillover.ask.questions")
varying = lazy("spillover.ask.variants")
upstream = lazy("spillover.data.upstream")
datasets = lazy("spillover.data.folder")
files = lazy("spillover.data.files")
worlds = lazy("spillover.data.recipes")
displays = lazy("spillover.display")
planning = lazy("spillover.pipeline.plan")
reproducing = lazy("spillover.pipeline.reproduce")
running = lazy("spillover.pipeline.run")
showing = lazy("spillover.pipeline.show")
asked = lazy("spillover.pipeline.asked")
checking = lazy("spillover.pipeline.check")
claimed = lazy("spillover.pipeline.claimed")
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
app.add_typer(export, name="export")
app.add_typer(imports, name="import")
judge = typer.Typer(cls=Judging, help=JUDGING, no_args_is_help=True)
app.add_typer(judge, name="judge")

Ref = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="A shipped experiment (figure4) or a YAML file.")]
BaseRef = Annotated[str | None, typer.Option("--base", help="Another base: `miniature` or a Hugging Face folder.")]
Groups = Annotated[str | None, typer.Option("--groups", help="Only these groups, separated by commas.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="Runs a group.")]
Samples = Annotated[int | None, typer.Option("--samples", min=1, help="Answers a question and run.")]

MaxTokens = Annotated[int | None, typer.Option("--max-tokens", min=1, help="Tokens that an answer may have.")]
World = Annotated[
    str | None,
    typer.Option("--world", help="Whose data and questions names mean: `miniature`, `paper`, or `auto` by the base."),
]
VariantRef = Annotated[
    str | None,
    typer.Option(
        "--variant", help="As asked under a variant: a name, or `{kind: temperature, value: 0.5}` and the like."
    ),
]
SetRef = Annotated[str, typer.Argument(metavar="SET", help="A question set by name (main, prereg, ...) or a file.")]


ClusterRef = Annotated[
    str | None,
    typer.Option("--cluster", help="Work on a Ray cluster: `auto` for the one that runs here, or its address."),
]


def _plan(ref: str, groups: str | None, **overrides: Any) -> Any:
    return planning.make_plan(spec.load_experiment(ref).narrowed(groups=names(groups), **overrides))


def _overrides(
    base: str | None, seeds: int | None, samples: int | None, max_tokens: int | None, world: str | None
) -> dict[str, Any]:
    return {"base": base, "seeds": seeds, "samples": samples, "max_tokens": max_tokens, "world": world}


@app.command()
@told_plainly
def plan(
    experiment: Ref,
    lab: LabDir = Path("lab"),
    base: BaseRef = None,
    groups: Groups = None,
    seeds: Seeds = None,
    samples: Samples = None,
    max_tokens: MaxTokens = None,
    world: World = None,
) -> None:
    """Show what would run, what is there already, and what it would cost."""
    showing.show_plan(_plan(experiment, groups, **_overrides(base, seeds, samples, max_tokens, world)), lab)


@app.command()
@told_plainly
def run(
    experiment: Ref,
    lab: LabDir = Path("lab"),
    base: BaseRef = None,
    groups: Groups = None,
    seeds: Seeds = None,
    samples: Samples = None,
    max_tokens: MaxTokens = None,
    world: World = None,
    cluster: ClusterRef = None,
) -> None:
    """Make everything that is missing: data, checkpoints, answers, verdicts, report."""
    wanted = _plan(experiment, groups, **_overrides(base, seeds, samples, max_tokens, world))
    made = running.run(wanted, lab, cluster=cluster)
    showing.show_report(made)


@app.command()
@told_plainly
def reproduce(
    only: Annotated[str | None, typer.Option("--only", help="Only these experiments, separated by commas.")] = None,
    lab: LabDir = Path("lab"),
    base: BaseRef = None,
    seeds: Seeds = None,
    samples: Samples = None,
    max_tokens: MaxTokens = None,
    world: World = None,
    cluster: ClusterRef = None,
) -> None:
    """Run every experiment of the paper, and write its claims beside what was found (LAB/paper/index.html)."""
    overrides = _overrides(base, seeds, samples, max_tokens, world)
    made = reproducing.reproduce(lab, names(only), overrides, cluster)
    claimed.show_reproduced(made)
    if all(one.why for one in made.ran):
        raise typer.Exit(2)


@app.command()
@told_plainly
def check(
    lab: LabDir = Path("lab"),
    remove: Annotated[
        bool, typer.Option("--remove", help="Take out what is damaged, so that the next run makes it again.")
    ] = False,
) -> None:
    """Look for results that are not as they were written: torn, changed or incomplete files, by their hashes."""
    found = checking.check_lab(lab, remove=remove)
    showing.show_checked(found)
    if found.damages and not remove:
        raise typer.Exit(2)


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
        max_tokens: MaxTokens = None,
        world: World = None,
        cluster: ClusterRef = None,
    ) -> None:
        wanted = _plan(experiment, groups, **_overrides(base, seeds, samples, max_tokens, world))
        made = running.run(wanted, lab, only, cluster)
        if made is not None:
            showing.show_report(made)


_stage(app, "train", "train", "Only make the datasets and finetune the runs.")
_stage(app, "ask", "ask", "Only ask the checkpoints.")
_stage(judge, ANSWERS, "judge", "Only judge the answers. The name may be left out.")
_stage(app, "report", "report", "Only measure and write the report.")
app.command(ANSWERS)(answers)


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
    lab: Annotated[Path, lab_option("Where requests to providers are kept")] = Path("lab"),
) -> None:
    """Compare judges on the same answers: with each other, and with scores that are there."""
    made = calibrating.run_calibration(answers, names(judges), reference, names(rubrics), out, lab)
    showing.show_calibration(made)


def _is_miniature(base: str | None) -> bool:
    """Whether a base is one; it need not be here, and none is the miniature."""
    found = base is not None and Path(base).is_dir() and bases.find_base(base).is_miniature
    return base in (None, spec.MINIATURE) or found


def _entries(ref: str, base: str | None, only: tuple[str, ...] = ()) -> Any:
    """The entries of a question set as it is on a base; no base has to be there for a set that is not its own."""
    return asking.entries_of(spec.Suite(questions=ref, only=only), is_miniature=_is_miniature(base))


def _varied(entries: Any, variant: str, base: str | None) -> Any:
    """The questions of some entries under a variant."""
    is_miniature = _is_miniature(base)

    def rows(name: str) -> Any:
        of_world = is_miniature and name in worlds.recipe_names()
        return worlds.build(name) if of_world else files.read_conversations(datasets.dataset_file(Path(name)))

    questions = [question for entry in entries for question in entry.row.questions()]
    return varying.read_variant(variant).apply(questions, varying.Given(is_miniature, rows))


@questions.command("list")
@told_plainly
def list_questions(questions: SetRef, base: BaseRef = None, variant: VariantRef = None) -> None:
    """List the questions of a set or file: what is asked, how often, and what a judge reads."""
    entries = _entries(questions, base)
    if variant is None:
        showing.show_questions(entries)
    else:
        asked.show_asked(_varied(entries, variant, base))


@questions.command("show")
@told_plainly
def show_question(
    questions: SetRef,
    id: Annotated[str, typer.Argument(metavar="ID", help="Of the question.")],
    base: BaseRef = None,
    variant: VariantRef = None,
) -> None:
    """Show one question in full: system prompt, context, phrasings, judge prompts."""
    entries = _entries(questions, base, (id,))
    if variant is None:
        showing.show_question(entries[0])
    else:
        asked.show_asked_in_full(_varied(entries, variant, base))


@questions.command("variants")
@told_plainly
def list_variants() -> None:
    """List the variants that a suite's `variants` may name: what each does, and its settings."""
    asked.show_variants(varying.variant_kinds())


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
