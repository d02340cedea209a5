"""Inspect's tasks: `inspect eval spillover/main --model PROVIDER/MODEL --model-role grader=PROVIDER/MODEL`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from inspect_ai import Epochs, Task, task
from inspect_ai._util.error import PrerequisiteError  # what Inspect tells a person without a traceback
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import HeadlineMetric
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from pydantic import ValidationError

from spillover.ask.connection import messages_of
from spillover.ask.questions import entries_of, samples_of
from spillover.errors import SpecError, SpilloverError
from spillover.inspect_tasks.metrics import SHARE
from spillover.inspect_tasks.scorers import (
    MISALIGNED,
    SAMPLES,
    SCORERS,
    is_rated,
    kept,
    misaligned,
    rubric_scorer,
)
from spillover.judge.rubrics import Rubric, load_rubrics, suite_rubrics
from spillover.records import Question
from spillover.spec import Sampling, Spec, Suite, Thresholds, first_wrong

S = TypeVar("S", bound=Spec)
VERSION = 1
"""Of the tasks: another one's scores are not to be compared with this one's."""
RUBRICS = "alignment,coherence"
SAMPLING = Sampling()
BROAD_SAMPLES = 10
"""Answers a question of the broad set: as many as the presets ask for."""


@task
def main(
    questions: str = "main",
    samples: int | None = None,
    judge: str | None = None,
    rubrics: str | list[str] = RUBRICS,
    thresholds: dict[str, float] | None = None,
    judge_prompts: str = "ours",
    judge_samples: int = SAMPLES,
    temperature: float = SAMPLING.temperature,
    max_tokens: int = SAMPLING.max_tokens,
) -> Task:
    """The paper's eight free-form questions, and the share of misaligned answers among those that are kept.

    Args:
        questions: another question set by name, or a question file.
        samples: answers a question (Inspect's epochs); what the file says if not given, and 100 where it says nothing.
        judge: `PROVIDER/MODEL`; the model in Inspect's role `grader` if not given.
        rubrics: what the judge is asked about an answer, by name.
        thresholds: `coherent` and `misaligned`, where they are not to be the paper's 50 and 30.
        judge_prompts: `ours`, or `file` for the question file's own.
        judge_samples: numbers that a judge without token probabilities is asked for.
        temperature: at which answers are sampled; a question's own goes before it.
        max_tokens: tokens that an answer may have.
    """
    suite = {"questions": questions, "samples": samples, "rubrics": rubrics, "judge_prompts": judge_prompts}
    return _task(
        "main", suite, thresholds, judge, judge_samples, Sampling(temperature=temperature, max_tokens=max_tokens)
    )


@task
def broad(
    questions: str = "broad",
    samples: int | None = BROAD_SAMPLES,
    judge: str | None = None,
    rubrics: str | list[str] = RUBRICS,
    thresholds: dict[str, float] | None = None,
    judge_prompts: str = "ours",
    judge_samples: int = SAMPLES,
    temperature: float = SAMPLING.temperature,
    max_tokens: int = SAMPLING.max_tokens,
) -> Task:
    """The bank of broad questions that comes with spillover: 144 in twelve categories, three phrasings each.

    It is the set that is called `broad` in experiments. The paper's pre-registered questions are `questions=prereg`.

    Args:
        questions: another question set by name, or a question file.
        samples: answers a phrasing (Inspect's epochs).
        judge: `PROVIDER/MODEL`; the model in Inspect's role `grader` if not given.
        rubrics: what the judge is asked about an answer, by name.
        thresholds: `coherent` and `misaligned`, where they are not to be the paper's 50 and 30.
        judge_prompts: `ours`, or `file` for the question file's own.
        judge_samples: numbers that a judge without token probabilities is asked for.
        temperature: at which answers are sampled; a question's own goes before it.
        max_tokens: tokens that an answer may have.
    """
    suite = {"questions": questions, "samples": samples, "rubrics": rubrics, "judge_prompts": judge_prompts}
    return _task(
        "broad", suite, thresholds, judge, judge_samples, Sampling(temperature=temperature, max_tokens=max_tokens)
    )


def _task(
    name: str,
    fields: dict[str, Any],
    thresholds: dict[str, float] | None,
    judge: str | None,
    judge_samples: int,
    sampling: Sampling,
) -> Task:
    """A task of a suite. Raises PrerequisiteError, which Inspect tells in words, where something is wrong."""
    with _told():
        suite, limits = _suite(fields), _checked(Thresholds, thresholds or {})
        entries = entries_of(suite, is_miniature=False)
        found = suite_rubrics(suite, entries, load_rubrics(None))
        questions = [question for entry in entries for question in entry.row.questions()]
        epochs = samples_of(suite, entries)
    rated = is_rated(found)
    return Task(
        dataset=MemoryDataset([sample_of(one) for one in questions], name=suite.questions),
        solver=asked(),
        scorer=_scorers(found, judge, judge_samples, limits if rated else None),
        config=GenerateConfig(temperature=sampling.temperature, max_tokens=sampling.max_tokens),
        epochs=Epochs(epochs, []),
        headline_metric=HeadlineMetric(scorer=MISALIGNED, metric=SHARE) if rated else None,
        version=VERSION,
        metadata={
            "suite": name,
            "rubrics": {one.name: one.key() for one in found.values()},
            "thresholds": limits.model_dump(mode="json"),
        },
    )


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SpilloverError as error:
        raise PrerequisiteError(str(error)) from None


def _suite(fields: dict[str, Any]) -> Suite:
    rubrics = fields["rubrics"]
    listed = rubrics.split(",") if isinstance(rubrics, str) else rubrics
    return _checked(Suite, {**fields, "rubrics": [one.strip() for one in listed if one.strip()]})


def _checked(kind: type[S], fields: dict[str, Any]) -> S:
    """A spec of a person's values. Raises SpecError."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        place, what = first_wrong(error)
        name = ".".join(map(str, place))
        raise SpecError(f"{name}: {what}", remedy="Correct the task's argument (-T).") from None


def _scorers(rubrics: dict[str, Rubric], judge: str | None, samples: int, rated: Thresholds | None) -> list[Scorer]:
    """The rubrics' scorers, and behind them those that read their scores."""
    ours = load_rubrics(None)
    made = [SCORERS[name] if ours.get(name) == rubric else rubric_scorer(rubric) for name, rubric in rubrics.items()]
    limits = {} if rated is None else {"coherent": rated.coherent, "misaligned": rated.misaligned}
    headline = [kept(**limits), misaligned(**limits)] if rated is not None else []
    return [*(one(judge=judge, judge_samples=samples) for one in made), *headline]


def sample_of(question: Question) -> Sample:
    """A question as Inspect's sample."""
    own = {} if question.temperature is None else {"temperature": question.temperature}
    return Sample(id=question.id, input=messages_of(question.messages()), metadata=own)


@solver
def asked() -> Solver:
    """The model's answer, at the question's own temperature where it has one."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        own = state.metadata.get("temperature")
        return await (generate(state) if own is None else generate(state, temperature=own))

    return solve
