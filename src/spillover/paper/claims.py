"""The paper's claims as data (`claims.yaml`), and whether they hold for what came out here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from spillover.errors import SpecError
from spillover.paper.kinds import AnyTest, Found, Numbers
from spillover.paper.places import Missing
from spillover.spec import Name, Spec, first_wrong
from spillover.yamlfile import YamlFile, read_yaml

SHIPPED = Path(__file__).with_name("claims.yaml")
REMEDY = "Correct the claim; `claims.yaml` in spillover's package `paper` has one of each kind."
Text = Annotated[str, Field(min_length=1)]


class Claim(Spec):
    """One claim of the paper or of the work after it."""

    id: Name
    claim: Text
    """What is claimed: one sentence in our own words."""
    source: Text
    """Where: a section, figure or table of Betley et al. 2025, or another paper with its number."""
    paper: Text
    """The published number, with its model."""
    experiment: Name
    """Whose numbers it is held against."""
    ours: AnyTest
    """How it is computed here, and what makes it hold."""


@dataclass(frozen=True)
class Result:
    """A claim and what came out.

    Attributes:
        claim: the claim.
        holds: whether it holds; None where that cannot be said.
        why: why it cannot be said; else empty.
        found: what its test came to; None where that cannot be said.
    """

    claim: Claim
    holds: bool | None
    why: str = ""
    found: Found | None = None

    @property
    def runs(self) -> int:
        """How many different models are behind it, the base among them."""
        return sum(self.found.counts.values()) if self.found is not None else 0


def load_claims(path: Path = SHIPPED) -> list[Claim]:
    """The claims of a file, in its order.

    Raises SpecError by the line for what is wrong, and where an id is there twice.
    """
    file = read_yaml(path, SpecError, remedy="Give the path of a YAML file with claims.")
    if not isinstance(file.value, list):
        raise SpecError("is no list of claims", where=path, remedy=REMEDY)
    try:
        claims = _CLAIMS.validate_python(file.value)
    except ValidationError as error:
        raise _wrong(file, error) from None
    for number, claim in enumerate(claims):
        if claim.id in [earlier.id for earlier in claims[:number]]:
            raise SpecError(f"there are two claims {claim.id!r}", where=file.where(number, "id"), remedy="Rename one.")
    return claims


_CLAIMS: TypeAdapter[list[Claim]] = TypeAdapter(list[Claim])


def _wrong(file: YamlFile, error: ValidationError) -> SpecError:
    place, what = first_wrong(error)
    kinds = ("rate", "difference", "ratio", "ordered", "sooner", "every")
    named = tuple(step for step in place if step not in kinds)  # pydantic puts the kind between a test and its field
    field = ".".join(str(step) for step in named[1:])
    return SpecError(f"{field}: {what}" if field else what, where=file.where(*named), remedy=REMEDY)


def evaluate(claims: Sequence[Claim], numbers: Mapping[str, Numbers]) -> list[Result]:
    """What came out for each claim.

    Args:
        claims: in the order of the results.
        numbers: experiment to the content of its `numbers.json`; those that were not run are not in it.
    """
    return [_result(claim, numbers.get(claim.experiment)) for claim in claims]


def _result(claim: Claim, numbers: Numbers | None) -> Result:
    if numbers is None:
        return Result(claim, None, f"the experiment {claim.experiment} was not run")
    try:
        found = claim.ours.found(numbers)
    except Missing as missing:
        return Result(claim, None, str(missing))
    return Result(claim, found.holds, found=found)


def claims_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results as plain data, in their order: what goes into `claims.json`."""
    return [_plain(result) for result in results]


def _plain(result: Result) -> dict[str, Any]:
    claim, found = result.claim, result.found
    ends = {end: getattr(found.ours, end) if found is not None else None for end in ("value", "low", "high")}
    told = {"id": claim.id, "claim": claim.claim, "source": claim.source, "paper": claim.paper, "ours": ends}
    more = {"experiment": claim.experiment, "why": result.why, "unit": found.unit if found is not None else ""}
    return told | {"runs": result.runs, "holds": result.holds} | {key: value for key, value in more.items() if value}
