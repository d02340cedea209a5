"""What an experiment's benchmarks come to, as far as it can be known before their tasks are loaded."""

from dataclasses import dataclass
from functools import cached_property

from spillover.ask.tasks import TaskSource, check_docker, find_task
from spillover.errors import BenchmarkError
from spillover.spec import API, Benchmark, Experiment, short_hash


@dataclass(frozen=True)
class BenchmarkSet:
    """A benchmark that is run.

    Attributes:
        name: as the experiment calls it.
        spec: what the experiment says of it.
        source: where its task comes from.
        grader: the provider's model that plays the role `grader`, PROVIDER/MODEL; None where nobody does.
    """

    name: str
    spec: Benchmark
    source: TaskSource
    grader: str | None = None

    @property
    def where(self) -> str:
        """Its place in the experiment."""
        return f"inspect.{self.name}"

    @cached_property
    def key(self) -> str:
        """A short hash of all that its scores depend on, beside the model: another version is another benchmark."""
        return short_hash(self.source.name, self.source.version, self.spec.args, self.spec.limit, self.grader)


def benchmark_sets(experiment: Experiment, *, of_world: bool) -> tuple[dict[str, BenchmarkSet], dict[str, str]]:
    """The benchmarks by name, and those that are left out, with the reason; those of the other world are neither.

    Raises:
        BenchmarkError: one that is not optional cannot be run here.
        SpecError: a task that does not exist.
    """
    found: dict[str, BenchmarkSet] = {}
    skipped: dict[str, str] = {}
    own = "miniature" if of_world else "paper"
    for name, spec in experiment.inspect.items():
        if spec.world not in ("any", own):
            continue
        try:
            found[name] = _found(name, spec, experiment)
        except BenchmarkError as error:
            if not spec.optional:
                raise
            skipped[name] = str(error)
    return found, skipped


def _found(name: str, spec: Benchmark, experiment: Experiment) -> BenchmarkSet:
    where = f"inspect.{name}"
    source = find_task(spec.task, where)
    if source.sandboxed:
        check_docker(where)
    grader = _grader(experiment, where) if spec.grader else None
    return BenchmarkSet(name, spec, source, grader)


def _grader(experiment: Experiment, where: str) -> str:
    if not experiment.judge.startswith(API):
        raise BenchmarkError(
            f"its answers are graded by a provider's model, and the judge is {experiment.judge!r}",
            where=where,
            remedy=f"Set `judge: {API}PROVIDER/MODEL`, or leave `grader` out where the task brings its own.",
        )
    return experiment.judge.removeprefix(API)
