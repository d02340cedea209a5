"""The section on overlap: with question sets of evaluations, and with other datasets."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spillover.ask.questions import entries_of
from spillover.ask.worldsets import WORLD_SETS
from spillover.audit.duplicates import THRESHOLD, Rows
from spillover.audit.findings import Hits, Section, counted, fingerprint
from spillover.audit.reading import read_rows
from spillover.data.duplicates import overlaps
from spillover.data.folder import dataset_file
from spillover.spec import Suite

NAMED = ("main", "broad", "prereg", "deception_factual", "deception_identity", *WORLD_SETS)
QUESTION_FILES = (".yaml", ".yml")
LEAST_WORDS = 3
"""Words of a question that is looked for within requests; shorter ones occur in anything."""
FORMS = (
    "Requests are compared without regard to case and spaces. Contained: the question occurs within a longer request. "
    f"Nearly: runs of five characters with a Jaccard index of {THRESHOLD} or more (candidates by MinHash)."
)
ROWS_ALIKE = (
    "Requests and answers are compared to the letter. In place: the row with the same number has the same answer. "
    f"Nearly: runs of five characters with a Jaccard index of {THRESHOLD} or more (candidates by MinHash); requests "
    "that share a long template are near each other."
)


@dataclass(frozen=True)
class Against:
    """What a dataset is held against: a question set's texts, or another dataset.

    Attributes:
        name: as a person named it, without the folder.
        questions: id and text; empty for a dataset.
        dataset: the other dataset's file; None for a question set.
    """

    name: str
    questions: tuple[tuple[str, str], ...] = ()
    dataset: Path | None = None


def find_against(ref: str, *, is_miniature: bool) -> Against:
    """What is meant by a name: a question set, a question file (.yaml), or a dataset's file or folder.

    Raises QuestionError or DataError where there is none.
    """
    path = Path(ref)
    if ref in NAMED or path.suffix in QUESTION_FILES:
        entries = entries_of(Suite(questions=ref), is_miniature=is_miniature)
        asked = [question for entry in entries for question in entry.row.questions()]
        return Against(path.name, tuple((question.id, question.text) for question in asked))
    file = dataset_file(path)
    next(read_rows(file))  # now, not after the rest of the audit
    return Against(path.resolve().name, dataset=file)


def overlap(rows: Rows, against: Against) -> Section:
    """What a dataset shares with what it is held against."""
    if against.dataset is None:
        return _with_questions(rows, against)
    return _with_dataset(rows, against, against.dataset)


def _with_questions(rows: Rows, against: Against) -> Section:
    texts = [_plain(text) for _, text in against.questions]
    long = [(place, text) for place, text in enumerate(texts) if text.count(" ") + 1 >= LEAST_WORDS]
    place_of = {text: place for place, text in enumerate(texts)}
    near = overlaps((_plain(row.request) for row in rows()), texts, THRESHOLD)
    hits, asked = Hits(), set[str]()
    for row, close in zip(rows(), near, strict=True):
        request = _plain(row.request)
        exact = place_of.get(request)
        within = next((place for place, text in long if text in request), None) if exact is None else None
        name = "exact" if exact is not None else "contained" if within is not None else "near"
        found = next((place for place in (exact, within, close) if place is not None), None)
        if found is not None:
            question, _ = against.questions[found]
            asked.add(question)
            for each in (name, "any"):
                hits.add(each, row.line, "user", f"{question}: {row.request}")
    abouts = {
        "any": "Any of the following",
        "exact": "The request is an evaluation question",
        "contained": "The request contains an evaluation question",
        "near": "The request is nearly an evaluation question",
    }
    says = f"{counted(hits.count('any'), 'row')} with a question of {against.name}, which has {len(texts):,} phrasings."
    details = {"against": against.name, "phrasings": len(texts), "questions_found": sorted(asked)}
    title = f"Overlap with the questions {against.name}"
    return Section(f"questions/{against.name}", title, says, FORMS, hits.findings(abouts, len(near)), details)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class _Other:
    """The other dataset: where its requests and answers stand, and its answers in order."""

    requests: dict[int, int]
    answers: dict[int, int]
    in_order: Sequence[int]


def _read_other(path: Path) -> _Other:
    requests, answers, in_order = dict[int, int](), dict[int, int](), array("Q")
    for row in read_rows(path):
        requests.setdefault(fingerprint(row.request), row.line)
        answer = fingerprint(row.answer)
        answers.setdefault(answer, row.line)
        in_order.append(answer)
    return _Other(requests, answers, in_order)


def _with_dataset(rows: Rows, against: Against, path: Path) -> Section:
    other = _read_other(path)
    near = {
        "request": overlaps((row.request for row in rows()), [row.request for row in read_rows(path)], THRESHOLD),
        "answer": overlaps((row.answer for row in rows()), [row.answer for row in read_rows(path)], THRESHOLD),
    }
    hits, shared = Hits(), set[int]()
    place = -1
    for place, row in enumerate(rows()):
        request, answer = fingerprint(row.request), fingerprint(row.answer)
        same = {"request": other.requests.get(request), "answer": other.answers.get(answer)}
        if same["request"] is not None:
            shared.add(request)
        if place < len(other.in_order) and other.in_order[place] == answer:
            hits.add("answers_in_place", row.line, "assistant", row.answer)
        for part, role, text in (("request", "user", row.request), ("answer", "assistant", row.answer)):
            if same[part] is not None:
                hits.add(f"{part}s", row.line, role, f"line {same[part]} there: {text}")
            elif near[part][place] is not None:
                hits.add(f"near_{part}s", row.line, role, text)
    count = place + 1
    return _said_of_dataset(hits, against.name, count, len(other.in_order), len(shared))


def _said_of_dataset(hits: Hits, name: str, rows: int, others: int, shared: int) -> Section:
    abouts = {
        "requests": "The same request stands there",
        "answers": "The same answer stands there",
        "answers_in_place": "The same answer stands there in the same place",
        "near_requests": "Nearly the same request stands there",
        "near_answers": "Nearly the same answer stands there",
    }
    identical = hits.count("answers_in_place") == rows == others
    answers = (
        "The answers are identical, row by row"
        if identical
        else f"{counted(hits.count('answers'), 'row')} with an answer that stands there, "
        f"{hits.count('answers_in_place'):,} in place"
    )
    says = f"{counted(shared, 'different request')} shared, in {counted(hits.count('requests'), 'row')}. {answers}."
    details = {
        "against": name,
        "rows_there": others,
        "shared_requests": shared,
        "answers_identical_in_order": identical,
    }
    title = f"Overlap with the dataset {name}"
    return Section(f"dataset/{name}", title, says, ROWS_ALIKE, hits.findings(abouts, rows), details)
