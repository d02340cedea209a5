"""Comparing judges on answers that are there: read, judged, compared, written down and drawn."""

import ast
import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from spillover.ask.access import Access, open_access
from spillover.errors import DataError, JudgeError, LabError, SpecError
from spillover.judge.make import JudgeModel, find_judge, id_of, make_judge
from spillover.judge.rubrics import Rubric, find_rubric, load_rubrics
from spillover.judge.scale import verdict
from spillover.measure.calibrate import Scores, calibrate
from spillover.records import Pair, Reason, pair_id
from spillover.report.calibration import draw_calibration
from spillover.report.figures import save_figure
from spillover.spec import Requests, Training
from spillover.store import ASIDE, PROVIDERS, Lab, open_lab

ANSWERS, RESULT = "answers.parquet", "calibration.json"
REFERENCE = "reference"
AUTHORS = {"alignment": "aligned", "coherence": "coherent"}
"""What the authors' tables call the scores."""
NO_SCORE, NOT_THERE = "no score", "not in the reference"
TABLE_REMEDY = "Give a report's answers.parquet, or a CSV with `question` and `answer` (scores: `aligned`, `coherent`)."


@dataclass(frozen=True)
class Said:
    """What is said of one answer: a value, or why there is none; and the probabilities that it was read from."""

    value: float | None
    reason: str | None
    table: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """Who scored some answers, and what came out.

    Attributes:
        id: the judge's; for a reference the name of its file, or of the judge that it names.
        rubrics: rubric to the hash of its words, as far as they are known.
        said: by rubric, one an answer.
    """

    id: str
    rubrics: dict[str, str]
    said: dict[str, list[Said]]

    def scores(self) -> dict[str, Scores]:
        """By rubric, as numbers."""
        return {
            rubric: Scores(
                np.array([np.nan if one.value is None else one.value for one in some], dtype=np.float64),
                tuple(one.reason for one in some),
            )
            for rubric, some in self.said.items()
        }


def run_calibration(
    answers: Path, refs: Sequence[str], reference: Path | None, rubrics: Sequence[str], out: Path, lab: Path
) -> Path:
    """Compares judges with each other, and with a reference where there is one.

    Args:
        answers: a report's answers.parquet, a CSV, or a folder of either.
        refs: the judges, by name.
        reference: a table with scores of the same answers; the answers' own scores if not given.
        rubrics: by name.
        out: the folder to write; it must not hold anything else.
        lab: where requests to providers that succeeded are kept.

    Returns:
        the folder.

    Raises:
        SpilloverError: a table, a judge or a rubric is wrong, or there is nothing to compare.
    """
    _check_named({"judges": refs, "rubrics": rubrics})
    _check_free(out)
    found = {ref: find_judge(ref) for ref in dict.fromkeys(refs)}
    words = {ref: _rubrics(judge, rubrics) for ref, judge in found.items()}
    table = read_scored(answers)
    pairs = [Pair(question, answer) for question, answer in table.select("question", "answer").iter_rows()]
    given = _reference(table, answers, reference, rubrics)
    if given is None and len(found) < 2:
        raise DataError(
            "there is nothing to compare: one judge, and no scores",
            where=answers,
            remedy="Give --reference, or two judges.",
        )
    scored = _all_judged(found, words, pairs, lab)
    everyone = scored | ({REFERENCE: given} if given is not None else {})
    _write(out, everyone, pairs, {"answers": str(answers), "thresholds": _thresholds(rubrics, words)})
    return out


def _check_named(lists: Mapping[str, Sequence[str]]) -> None:
    for what, names in lists.items():
        if not names:
            raise SpecError(f"no {what} are named", remedy=f"Give --{what} A,B.")


def _rubrics(judge: JudgeModel, names: Sequence[str]) -> dict[str, Rubric]:
    known = load_rubrics(judge.folder)
    found = {name: find_rubric(name, known) for name in names}
    for name, rubric in found.items():
        if rubric.by != "model" or rubric.reads != "number":
            raise JudgeError(f"the rubric {name!r} gives no scores of a model", remedy="Leave it out of --rubrics.")
    return found


def _thresholds(names: Sequence[str], words: Mapping[str, Mapping[str, Rubric]]) -> dict[str, float]:
    return {name: next(iter(words.values()))[name].threshold for name in names}


def _all_judged(
    found: Mapping[str, JudgeModel], words: Mapping[str, Mapping[str, Rubric]], pairs: Sequence[Pair], lab: Path
) -> dict[str, Scored]:
    """What every judge says. The requests to providers that succeed are kept in the lab, and found there."""
    with ExitStack() as stack:
        access = None
        if any(judge.is_hosted for judge in found.values()):
            opened = stack.enter_context(open_lab(lab))
            access = stack.enter_context(open_access(opened.root / PROVIDERS, Requests()))
        return {ref: _judged(judge, words[ref], pairs, access) for ref, judge in found.items()}


def _judged(judge: JudgeModel, rubrics: Mapping[str, Rubric], pairs: Sequence[Pair], access: Access | None) -> Scored:
    model = make_judge(judge, Training().precision, access=access)
    said = {
        name: [Said(one.value, one.reason, one.table) for one in model.judge(pairs, rubric)]
        for name, rubric in rubrics.items()
    }
    return Scored(id_of(model, judge), {name: rubric.key() for name, rubric in rubrics.items()}, said)


# tables of answers


def read_scored(path: Path) -> pl.DataFrame:
    """Answers from a file or a folder: `question`, `answer`, and whatever else stands there; equal pairs once.

    Raises DataError where there is no such file, where it cannot be read, or where a column is missing.
    """
    files = _files(path)
    frames = [_read(file) for file in files]
    table = pl.concat(frames, how="diagonal").unique(["question", "answer"], keep="first", maintain_order=True)
    if table.is_empty():
        raise DataError("holds no answers", where=path, remedy=TABLE_REMEDY)
    return table


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / ANSWERS).is_file():
        return [path / ANSWERS]
    files = sorted(path.glob("*.csv"))
    if not files:
        what = "holds neither answers.parquet nor a CSV" if path.is_dir() else "there is no such file or folder"
        raise DataError(what, where=path, remedy=TABLE_REMEDY)
    return files


def _read(file: Path) -> pl.DataFrame:
    try:
        table = pl.read_csv(file, infer_schema=False) if file.suffix != ".parquet" else pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"cannot be read: {str(error).splitlines()[0]}", where=file, remedy=TABLE_REMEDY) from None
    if "prompt" in table.columns and "question" in table.columns:  # a report's: its `question` is an id
        table = table.drop("question").rename({"prompt": "question"})
    if "outcome" in table.columns:
        table = table.filter(pl.col("outcome").is_null())
    missing = [name for name in ("question", "answer") if name not in table.columns]
    if missing:
        told = f"has no column {' and no column '.join(map(repr, missing))}; it has {', '.join(table.columns)}"
        raise DataError(told, where=file, remedy=TABLE_REMEDY)
    return _scores_as_numbers(table.with_columns(pl.col("question", "answer").fill_null("")), file)


def _scores_as_numbers(table: pl.DataFrame, file: Path) -> pl.DataFrame:
    """The table with the authors' names replaced by ours, and scores as numbers."""
    ours = {theirs: name for name, theirs in AUTHORS.items() if theirs in table.columns and name not in table.columns}
    ours |= {f"judge_{theirs}": f"{name}_table" for theirs, name in ours.items() if f"judge_{theirs}" in table.columns}
    table = table.rename(ours)
    try:
        return table.with_columns(pl.col(name).cast(pl.Float64) for name in AUTHORS if name in table.columns)
    except pl.exceptions.PolarsError as error:
        what = str(error).splitlines()[0]
        raise DataError(f"a score is no number: {what}", where=file, remedy=TABLE_REMEDY) from None


# the reference


def _reference(table: pl.DataFrame, answers: Path, reference: Path | None, rubrics: Sequence[str]) -> Scored | None:
    """The reference's scores of the table's answers; None where nobody has scored them."""
    source = table if reference is None else read_scored(reference)
    scores = [name for name in rubrics if name in source.columns]
    if not scores and reference is None:
        return None
    where = reference or answers
    if not scores:
        raise DataError(f"has no scores of {' or '.join(rubrics)}", where=where, remedy=TABLE_REMEDY)
    by_pair = {pair_id(row["question"], row["answer"]): row for row in source.iter_rows(named=True)}
    rows = [by_pair.get(pair_id(*pair)) for pair in table.select("question", "answer").iter_rows()]
    if not any(rows):
        remedy = "Question and answer must be the same in both, character by character."
        raise DataError("none of the answers is in the reference", where=where, remedy=remedy)
    labels = {name: rubric.labels for name, rubric in load_rubrics(None).items()}
    said = {name: [_recorded(row, name, labels.get(name, {})) for row in rows] for name in scores}
    return Scored(_named(source, scores, where), _words(source, scores), said)


def _recorded(row: Mapping[str, Any] | None, rubric: str, labels: Mapping[str, Reason]) -> Said:
    """What a table says of an answer: a score, or why there is none as far as it says."""
    if row is None:
        return Said(None, NOT_THERE, {})
    table = _probabilities(row.get(f"{rubric}_table"))
    if row[rubric] is not None:
        return Said(row[rubric], None, table)
    read = verdict(table, labels).reason if table else None
    return Said(None, row.get(f"{rubric}_reason") or read or NO_SCORE, table)


def _probabilities(text: str | None) -> dict[str, float]:
    """A table of token probabilities, as JSON or as Python writes it; empty where it is neither."""
    try:
        table = ast.literal_eval(text or "")
        return {str(token): float(p) for token, p in table.items()}
    except (ValueError, SyntaxError, TypeError, AttributeError):
        return {}


def _named(source: pl.DataFrame, rubrics: Sequence[str], where: Path) -> str:
    """Who gave a table's scores: the judges that it names, or the name of its file."""
    named = {name for rubric in rubrics for name in _different(source, f"{rubric}_judge")}
    return " and ".join(sorted(named)) or where.name


def _words(source: pl.DataFrame, rubrics: Sequence[str]) -> dict[str, str]:
    """Rubric to the hash of its words, where the table has it."""
    found = {rubric: _different(source, f"{rubric}_rubric") for rubric in rubrics}
    return {rubric: " and ".join(hashes) for rubric, hashes in found.items() if hashes}


def _different(source: pl.DataFrame, column: str) -> list[str]:
    return source[column].drop_nulls().unique().sort().to_list() if column in source.columns else []


# what is written


def _check_free(out: Path) -> None:
    """Raises LabError where the folder holds something else than a calibration."""
    if out.exists() and not (out / RESULT).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise LabError("is no calibration, and would be replaced by one", where=out, remedy="Give another --out.")


def _write(out: Path, scored: Mapping[str, Scored], pairs: Sequence[Pair], settings: Mapping[str, Any]) -> None:
    scores = {name: one.scores() for name, one in scored.items()}
    judges = [name for name in scored if name != REFERENCE]
    against = [*((name, REFERENCE) for name in judges if REFERENCE in scored), *itertools.combinations(judges, 2)]
    result = {
        **settings,
        "pairs": len(pairs),
        "judges": {name: {"id": one.id, "rubrics": one.rubrics} for name, one in scored.items()},
        "comparisons": calibrate(scores, settings["thresholds"], against),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with Lab(out.parent).whole(out, {"judges": result["judges"], **settings}) as (folder, _):
        _rows(scored, pairs).write_parquet(folder / "scores.parquet")
        save_figure(draw_calibration(result, scores), folder / "calibration")
        text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / RESULT).write_text(f"{text}\n", encoding="utf-8")
    if not any((out.parent / ASIDE).iterdir()):
        (out.parent / ASIDE).rmdir()


def _rows(scored: Mapping[str, Scored], pairs: Sequence[Pair]) -> pl.DataFrame:
    """Every score, one row a judge, a rubric and an answer."""
    rows = [
        (pair.question, pair.answer, name, one.id, rubric, one.rubrics.get(rubric), found.value, found.reason, table)
        for name, one in scored.items()
        for rubric, said in one.said.items()
        for pair, found in zip(pairs, said, strict=True)
        for table in [json.dumps(found.table, ensure_ascii=False)]
    ]
    texts = ("question", "answer", "name", "judge", "rubric", "words")
    schema = {**dict.fromkeys(texts, pl.String), "value": pl.Float64, "reason": pl.String, "table": pl.String}
    return pl.DataFrame(rows, schema, orient="row")
