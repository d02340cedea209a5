"""The audit of a dataset: all sections, what stands out, and their record for programs.

The rows are read once for whatever looks at one row at a time. Beside it, one process scans their code and another one
reads them again for what compares rows. No text is kept, so memory hardly grows with the number of rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from spillover.audit.beside import Beside, Scanner
from spillover.audit.code import TOGETHER, Code
from spillover.audit.duplicates import repeated
from spillover.audit.findings import Finding, Measure, Row, Section, Share
from spillover.audit.judged import Judged
from spillover.audit.lengths import Lengths
from spillover.audit.nontext import NonText
from spillover.audit.overlap import Against, find_against, overlap
from spillover.audit.private import PersonalData, Secrets
from spillover.audit.reading import read_rows
from spillover.audit.refusals import Refusals
from spillover.audit.shape import Shape
from spillover.audit.standout import StandsOut, stands_out
from spillover.audit.templates import templates
from spillover.audit.words import Words
from spillover.data.folder import dataset_file, file_hash
from spillover.display import Display
from spillover.finetune.base import find_base
from spillover.judge.make import find_judge
from spillover.judge.models import Assessor, open_models
from spillover.spec import MINIATURE

T = TypeVar("T")

FORMAT = 1
"""Of audit.json."""
ORDER = (
    "rows",
    "lengths",
    "questions",
    "dataset",
    "code",
    "words",
    "duplicates",
    "templates",
    "secrets",
    "personal",
    "refusals",
)
"""Kinds of sections as they are shown; the others come after them."""


@dataclass(frozen=True)
class Asked:
    """What is to be audited, and how.

    Attributes:
        file: the dataset, a file or a folder.
        against: question sets by name, question files, or datasets.
        reference: a dataset whose answers the words of these are held against; None for the own requests.
        judge: a model, by name; None for none.
        base: whose tokenizer counts tokens; None for the miniature's, which also leaves the names of question sets to
            the paper's.
        lab: where a judge's verdicts are kept.
    """

    file: Path
    against: tuple[str, ...] = ()
    reference: Path | None = None
    judge: str | None = None
    base: str | None = None
    lab: Path = Path("lab")


@dataclass(frozen=True)
class Audit:
    """What is in a dataset.

    Attributes:
        name: of the file, or of the dataset's folder.
        sha256: of the file's bytes.
        rows: how many there are.
        stands_out: what to read first.
        sections: everything that was measured.
    """

    name: str
    sha256: str
    rows: int
    stands_out: tuple[StandsOut, ...]
    sections: tuple[Section, ...]

    def record(self) -> dict[str, Any]:
        """The audit as plain data: what audit.json holds, and all that the page shows."""
        return {
            "format": FORMAT,
            "dataset": self.name,
            "sha256": self.sha256,
            "rows": self.rows,
            "stands_out": [{"section": one.section, "says": one.says} for one in self.stands_out],
            "sections": {section.key: _section(section) for section in self.sections},
        }


def audit(asked: Asked, display: Display | None = None) -> Audit:
    """Audits a dataset.

    Raises:
        SpilloverError: the dataset, or something that it is held against, cannot be read; the judge or the base is
            wrong. Wrong rows of the dataset, and wrong names, are found before anything is measured.
    """
    display = display or Display()
    file = dataset_file(asked.file)
    base = find_base(asked.base or MINIATURE)
    against = [find_against(ref, is_miniature=asked.base is not None and base.is_miniature) for ref in asked.against]
    _check_judge(asked.judge)
    count = sum(1 for _ in read_rows(file))
    with ExitStack() as stack:
        judge = _opened(asked, stack)
        comparisons = _comparisons(file, against)
        if count >= TOGETHER:
            comparisons = _begun(comparisons, stack.enter_context(Beside()))
        code = Code(Scanner(stack.enter_context(Beside()), TOGETHER))
        measures: list[Measure] = [
            Shape(),
            Lengths(base),
            _words(asked),
            Secrets(),
            PersonalData(),
            Refusals(),
            NonText(),
            code,
        ]
        _read_once(read_rows(file), measures, count, display)
        sections = [measure.result() for measure in measures]
        sections += [one() for one in display.track("compared", comparisons)]
        sections += [Judged(judge).judge_all(partial(read_rows, file))] if judge is not None else []
    sections.sort(key=_place)
    name = dataset_name(asked.file)
    return Audit(name, file_hash(file), count, tuple(stands_out(sections)), tuple(sections))


def dataset_name(path: Path) -> str:
    """What a dataset is called: its file's name, or its folder's."""
    return path.resolve().name


def _check_judge(ref: str | None) -> None:
    if ref is not None:
        find_judge(ref)


def _opened(asked: Asked, stack: ExitStack) -> Assessor | None:
    return stack.enter_context(open_models(asked.lab)).judge(asked.judge) if asked.judge is not None else None


def _words(asked: Asked) -> Words:
    if asked.reference is None:
        return Words()
    answers = (row.answer for row in read_rows(dataset_file(asked.reference)))
    return Words(answers, f"the answers of {dataset_name(asked.reference)}")


def _read_once(rows: Iterator[Row], measures: Sequence[Measure], count: int, display: Display) -> None:
    with display.bar("rows", count) as bar:
        for row in rows:
            for measure in measures:
                measure.add(row)
            bar.advance(1)


def _comparisons(file: Path, against: Sequence[Against]) -> list[Callable[[], Section]]:
    """The sections for which rows are held against each other or against something else."""
    rows = partial(read_rows, file)
    return [partial(repeated, rows), partial(templates, rows), *(partial(overlap, rows, one) for one in against)]


def _begun(work: Sequence[Callable[[], T]], beside: Beside) -> list[Callable[[], T]]:
    """What gives the results of work that goes on beside; what the process died over is done here."""
    return [partial(beside.finish, beside.start(one), one) for one in work]


def _place(section: Section) -> int:
    kind = section.key.split("/")[0]
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "says": section.says,
        "about": section.about,
        "findings": {one.name: _finding(one) for one in section.findings},
        "details": _plain(section.details),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    examples = [{"line": one.line, "part": one.part, "text": one.text} for one in finding.examples]
    return {"about": finding.about, **_plain(finding.share), "lines": list(finding.lines), "examples": examples}


def _plain(value: Any) -> Any:
    if isinstance(value, Share):
        return {"count": value.count, "of": value.of, "value": value.value, "low": value.low, "high": value.high}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
