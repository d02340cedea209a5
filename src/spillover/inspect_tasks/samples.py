"""Rows of answers with their verdicts as Inspect's samples, and samples as such rows again: nothing is lost between.

What Inspect has a place for stands there; the rest stands in a sample's metadata.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from inspect_ai.log import EvalSample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.scorer import Score

from spillover.ask.connection import is_cut, messages_of, outcome_of
from spillover.inspect_tasks.scorers import (
    KEPT,
    MISALIGNED,
    asked_text,
    is_rated,
    kept_score,
    misaligned_score,
    value_of,
)
from spillover.records import ANSWER_COLUMNS, Message, Question, pair_id

Row = Mapping[str, Any]

VERDICT = ("label", "reason", "table", "judge", "rubric")
"""What stands beside a verdict's value, in columns RUBRIC_label and so on."""
FROM_VERDICT = ("judge", "rubric")
ELSEWHERE = ("group", "run", "plain", "outcome")
"""Columns for which Inspect's sample has no place of its own; the seed is another."""
FAILED = "failed: sample error"
"""The outcome of a sample that ended in an error of Inspect's."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table of judged answers, in order.

    Attributes:
        names: all of them.
        rubrics: those by which the answers are judged.
        truths: columns that hold ground truth, which is a value and nothing beside it.
    """

    names: tuple[str, ...]
    rubrics: tuple[str, ...]
    truths: tuple[str, ...]

    @property
    def schema(self) -> dict[str, Any]:
        """The columns' types."""
        return {name: getattr(pl, _TYPES.get(name) or self._type(name)) for name in self.names}

    def _type(self, name: str) -> str:
        return "Float64" if name in (*self.rubrics, *self.truths) else "String"

    @property
    def told(self) -> dict[str, Any]:
        """The types of those that a row tells; whether it is kept follows from them."""
        return {name: kind for name, kind in self.schema.items() if name not in _STANDING}

    @property
    def unknown(self) -> list[str]:
        """Columns of which nothing is known."""
        told = {*self.rubrics, *self.truths, *(f"{rubric}_{what}" for rubric in self.rubrics for what in VERDICT)}
        return [name for name in self.names if name not in told and name not in _TYPES]


_STANDING = {"kept": "Boolean", "set_aside": "String", "misaligned": "Boolean"}
_TYPES = {**dict(ANSWER_COLUMNS), "pair": "String", **_STANDING}
TRUTH = "truth_"


def columns_of(names: Sequence[str]) -> Columns:
    """What the columns of a table are, by their names."""
    rubrics = tuple(name for name in names if f"{name}_judge" in names)
    truths = tuple(name for name in names if name.startswith(TRUTH) and name not in rubrics and _is_alone(name, names))
    return Columns(tuple(names), rubrics, truths)


def _is_alone(name: str, names: Sequence[str]) -> bool:
    return name.removeprefix(TRUTH) in names


def judged_columns(rubrics: Sequence[str]) -> Columns:
    """The columns of answers that were judged by some rubrics."""
    verdicts = [name for rubric in rubrics for name in (rubric, *(f"{rubric}_{what}" for what in VERDICT))]
    return columns_of([*(name for name, _ in ANSWER_COLUMNS), "pair", *verdicts, *_STANDING])


def sample_of(row: Row, columns: Columns, rubrics: Sequence[str], model: str, asked: Question | None) -> EvalSample:
    """A row as a sample.

    Args:
        row: an answer with its verdicts.
        columns: of its table.
        rubrics: those by which it was judged.
        model: who answered, as the log calls it.
        asked: the question, where its earlier turns are known.
    """
    messages = messages_of(asked.messages() if asked is not None else _messages(row))
    answer = ChatMessageAssistant(content=row["answer"], model=model, source="generate")
    return EvalSample(
        id=row["question"],
        epoch=row["sample"] + 1,
        input=messages,
        target="",
        messages=[*messages, answer],
        output=_output(row, model, answer),
        scores=dict(_scores(row, columns, rubrics)),
        metadata=_metadata(row),
    )


def _messages(row: Row) -> list[Message]:
    return Question(row["question"], row["prompt"], row["system"]).messages()


def _output(row: Row, model: str, answer: ChatMessageAssistant) -> ModelOutput:
    blocked = row["outcome"] in ("blocked", "refused")
    stop: StopReason = "content_filter" if blocked else "max_tokens" if row["truncated"] else "stop"
    choice = ChatCompletionChoice(message=answer, stop_reason=stop)
    usage = ModelUsage(output_tokens=row["tokens"], total_tokens=row["tokens"])
    return ModelOutput(model=model, choices=[choice], usage=usage)


def _metadata(row: Row) -> dict[str, Any]:
    """What has no other place. A seed is too large a number for the viewer's language, and so a text."""
    told = {name: row.get(name) for name in ELSEWHERE if row.get(name) is not None}
    return told | ({"seed": str(row["seed"])} if row["seed"] is not None else {})


def _scores(row: Row, columns: Columns, rubrics: Sequence[str]) -> Iterator[tuple[str, Score]]:
    yield from ((rubric, _score(row, rubric)) for rubric in rubrics)
    if is_rated(rubrics):
        yield KEPT, kept_score(row)
        yield MISALIGNED, misaligned_score(row)
    for truth in columns.truths:
        if row[truth] is not None:
            yield truth, Score(value=row[truth])


def _score(row: Row, rubric: str) -> Score:
    said = {what: row.get(f"{rubric}_{what}") for what in VERDICT}  # reports have no tables
    metadata = {what: said[what] for what in FROM_VERDICT if said[what] is not None}
    metadata |= {"table": _table(said["table"])} if said["table"] is not None else {}
    value = row[rubric] if row[rubric] is not None else said["label"]
    if value is None:
        return Score.unscored(reason=said["reason"], metadata=metadata or None)
    return Score(value=value, reason=said["reason"], metadata=metadata or None)


def _table(text: str) -> Any:
    """A table of probabilities as such, where it comes out again as it is written; else its text."""
    table = json.loads(text)
    return table if _written(table) == text else text


def _written(table: Any) -> str:
    return json.dumps(table, ensure_ascii=False)


def row_of(sample: EvalSample, columns: Columns, suite: str, model: str) -> dict[str, Any]:
    """A sample as a row: one that `sample_of` made, or one of an evaluation. Whether it is kept is not in it."""
    scores, told = sample.scores or {}, sample.metadata
    answer = _answer(sample)
    asked = _asked(sample.input)
    row = {
        "group": told.get("group", model),
        "run": told.get("run", model),
        "suite": suite,
        "question": str(sample.id),
        "sample": sample.epoch - 1,
        **asked,
        "plain": told.get("plain"),
        **answer,
        "seed": int(told["seed"]) if "seed" in told else None,
        "pair": pair_id(told.get("plain", asked["prompt"]), answer["answer"]),
    }
    for rubric in columns.rubrics:
        row |= _verdict(rubric, scores.get(rubric), answer["outcome"] if sample.error is not None else None)
    row |= {truth: value_of(scores[truth]) if truth in scores else None for truth in columns.truths}
    return {name: row[name] for name in columns.names if name not in _STANDING}


def _asked(asked: str | list[ChatMessage]) -> dict[str, Any]:
    turns = [] if isinstance(asked, str) else asked
    system = turns[0].text if turns and turns[0].role == "system" else None
    return {"system": system, "prompt": asked_text(asked)}


def _answer(sample: EvalSample) -> dict[str, Any]:
    """What was answered; nothing where the sample ended in an error."""
    choice = next(iter(sample.output.choices), None)
    if choice is None or sample.error is not None:
        return {"answer": "", "tokens": 0, "truncated": False, "outcome": FAILED}
    usage = sample.output.usage
    outcome = sample.metadata.get("outcome") or outcome_of(choice)
    return {
        "answer": choice.message.text if outcome is None else "",
        "tokens": usage.output_tokens if usage is not None else 0,
        "truncated": is_cut(choice),
        "outcome": outcome,
    }


def _verdict(rubric: str, score: Score | None, failed: str | None) -> dict[str, Any]:
    """The columns of a rubric. An answer that is not there has its outcome in the reason's place."""
    if score is None:
        return {rubric: None, **{f"{rubric}_{what}": None for what in VERDICT}, f"{rubric}_reason": failed}
    told = score.metadata or {}
    table = told.get("table")
    return {
        rubric: value_of(score),
        f"{rubric}_label": score.value if isinstance(score.value, str) else None,
        f"{rubric}_reason": score.reason,
        f"{rubric}_table": table if table is None or isinstance(table, str) else _written(table),
        **{f"{rubric}_{what}": told.get(what) for what in FROM_VERDICT},
    }
