"""What is compared: groups of runs, their datasets, and which group is held against which."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from spillover.spec.values import Count, Spec, Wrong


class Made(Spec):
    """A dataset that is made of others, as `spillover data transform` would make it."""

    of: Annotated[tuple[str, ...], Field(min_length=1)]
    """Datasets as `data` names them, in the order that the first change wants."""
    changes: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]
    """One after the other: a transform's `kind` and its settings (`backdoor`, `mix`, `subset`, ...). The first is given
    all datasets."""


class Group(Spec):
    """A named narrow dataset and how many seeds of it are trained; or models that were finetuned elsewhere."""

    data: str | Made | None = None
    """A recipe of the base's own (`insecure`, ...), the path of a dataset's file or folder, or how one is made."""
    seeds: Count = 6
    """Runs, with seeds 0, 1, 2, ..."""
    rows: Count | None = None
    """Use only the first rows of the dataset; all of them if not given."""
    models: tuple[str, ...] = ()
    """Instead of `data`: one run each. Folders of PEFT adapters of this base, or `api:PROVIDER/MODEL`."""
    train: dict[str, Any] = {}
    """What differs from the experiment's `train` for this group."""
    topics: tuple[str, ...] = ()
    """What its rows are about, as labels of the rubric `topic`: misaligned answers on these are told apart."""
    after: str | None = None
    """A group whose runs this one's go on from, seed by seed: its adapters are where training begins."""
    every: Count | None = None
    """Keep a checkpoint every so many optimiser steps, and ask it as well: as the group `NAME@STEP`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.data is None) == (not self.models):
            raise Wrong(what="a group has either `data` or `models`")
        wrong = next((name for name in ("train", "after", "every") if self.models and getattr(self, name)), None)
        if wrong is not None:
            raise Wrong(wrong, what="is for groups that are trained here, and this one has `models`")
        return self

    @property
    def runs(self) -> int:
        """How many runs the group has."""
        return len(self.models) or self.seeds


class Comparison(Spec):
    """A group and the control that it is tested against, over runs."""

    group: str
    control: str
