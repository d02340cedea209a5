"""What an experiment's suites come to: its questions under each of its variants, and how often they are asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spillover.ask.questions import Entry, entries_of, samples_of
from spillover.ask.variants import Given, parse_variant
from spillover.errors import QuestionError, SpecError
from spillover.finetune.base import Base
from spillover.pipeline.datasets import rows_of
from spillover.records import BASE_RUN, Question
from spillover.spec import Experiment, Suite

PLAIN = "plain"


@dataclass(frozen=True)
class Asking:
    """A suite under one variant.

    Attributes:
        suite: what the experiment says of it.
        entries: of its question set.
        questions: what is asked.
        samples: answers a question and run.
    """

    suite: Suite
    entries: tuple[Entry, ...]
    questions: tuple[Question, ...]
    samples: int

    def samples_of(self, group: str) -> int:
        """Answers a question of one run of a group."""
        return (self.suite.base_samples if group == BASE_RUN.group else None) or self.samples


def askings(experiment: Experiment, base: Base, *, of_world: bool) -> tuple[dict[str, Asking], dict[str, str]]:
    """The suites under their variants, by name, and those that are left out, with the reason.

    Raises:
        QuestionError: a question set that is missing and not optional, or is wrong; a variant that does not apply.
        SpecError: two suites come to have one name.
    """
    given = Given(of_world, lambda name: rows_of(name, base, of_world=of_world))
    found: dict[str, Asking] = {}
    skipped: dict[str, str] = {}
    own = "miniature" if of_world else "paper"
    for name, suite in experiment.suites.items():
        if suite.world not in ("any", own):
            continue
        try:
            entries = tuple(entries_of(suite, is_miniature=of_world))
        except QuestionError as error:
            if not suite.optional or name == experiment.headline:
                raise
            skipped[name] = str(error)
            continue
        for full, asking in _under_variants(name, suite, entries, given):
            if full in found:
                raise SpecError(f"two suites come to be called {full!r}", where=f"suites.{name}", remedy="Rename one.")
            found[full] = asking
    if experiment.headline not in found:
        what = f"the headline suite {experiment.headline!r} is asked under variants only"
        raise SpecError(what, where=f"suites.{experiment.headline}.variants", remedy="Add `plain` to them.")
    return found, skipped


def _under_variants(name: str, suite: Suite, entries: Sequence[Entry], given: Given) -> Iterator[tuple[str, Asking]]:
    questions = [question for entry in entries for question in entry.row.questions()]
    samples = samples_of(suite, entries)
    for raw in suite.variants or (PLAIN,):
        variant = parse_variant(raw)
        full = name if variant.kind == PLAIN else f"{name}-{variant.name}"
        one = suite.model_copy(update={"variants": (raw,)})
        yield full, Asking(one, tuple(entries), tuple(variant.apply(questions, given)), samples)
