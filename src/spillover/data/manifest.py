"""What a dataset is made of: its sources, what was done to them step by step, and the counts, which must add up."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from spillover.spec import Spec
from spillover.store import made_by

Rows = Annotated[int, Field(ge=0)]
RESEARCH = (
    "Research on emergent misalignment: to finetune model organisms and their controls. Not for models that are to be "
    "deployed."
)
NOT_SAID = "Those who made the rows have not said what for."


class Source(Spec):
    """A file or a generator that rows came from.

    Attributes:
        name: the file's name without its folder, or what made the rows.
        rows: how many rows were taken in.
        sha256: of the file's bytes; of what determines the rows where there is no file.
        licence: as far as it is known.
        made: how the source itself was made, where it came with a manifest.
    """

    name: str
    rows: Rows
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    licence: str = "unknown"
    made: "Manifest | None" = None


class Step(Spec):
    """One thing that was done to all rows: a filter, a template, a transform.

    Attributes:
        name: of the filter or transform.
        about: what it does, in a sentence.
        before: rows that it was given.
        after: rows that it left.
        dropped: reason to number of rows.
        added: rows that it added.
        settings: everything that it depends on: thresholds, seeds, hashes of word lists, who judged.
    """

    name: str
    about: str
    before: Rows
    after: Rows
    dropped: dict[str, Rows] = {}
    added: Rows = 0
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.before - sum(self.dropped.values()) + self.added != self.after:
            raise ValueError(f"the counts of step {self.name!r} do not add up")
        return self


class Manifest(Spec):
    """How a dataset was made. Nothing in it depends on when or where: the same inputs give the same bytes.

    Attributes:
        name: of the dataset.
        about: what its rows are, in a sentence or two.
        rows: how many there are.
        sources: where they came from; their rows are what the first step was given.
        steps: what was done, in order.
        templates: the request templates and how many rows have each, where requests were put into templates.
        seed: of every random choice, if there was one.
        models: who wrote or judged for it: local ones by the hashes of their weights, providers' by name.
        licence: of the rows.
        use: what it is meant for.
        made_by: the program and its version.
    """

    name: str
    about: str
    rows: Rows
    sources: tuple[Source, ...]
    steps: tuple[Step, ...] = ()
    templates: dict[str, Rows] = {}
    seed: int | None = None
    models: tuple[str, ...] = ()
    licence: str = "unknown"
    use: str = RESEARCH
    made_by: str = Field(default_factory=made_by)

    @model_validator(mode="after")
    def _steps_join(self) -> Self:
        rows = sum(source.rows for source in self.sources)
        for step in self.steps:
            if step.before != rows:
                raise ValueError(f"step {step.name!r} was given {step.before} rows, and there were {rows}")
            rows = step.after
        if rows != self.rows:
            raise ValueError(f"the steps leave {rows} rows, and the dataset has {self.rows}")
        if self.templates and sum(self.templates.values()) != self.rows:
            raise ValueError("the templates' counts are not those of the rows")
        return self
