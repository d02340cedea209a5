"""Who can judge, by name: found without loading anything, made when there is something to judge."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spillover.errors import BaseError, JudgeError
from spillover.finetune.base import find_base, folder_key
from spillover.judge.judge import Judge
from spillover.lazy import lazy
from spillover.spec import API

local = lazy("spillover.judge.local")


@dataclass(frozen=True)
class JudgeModel:
    """A model that judges: a base and, where there is one, the adapter that makes it a judge; or a provider's model.

    Attributes:
        ref: how a person named it.
        base: the folder of the model; None for a provider's.
        adapter: the folder of the judge's adapter on it.
    """

    ref: str
    base: Path | None
    adapter: Path | None = None

    @cached_property
    def id(self) -> str:
        """Who judges: the weights' hashes, or the provider's name of the model."""
        if self.base is None:
            return self.ref
        adapter = f"+{folder_key(self.adapter)}" if self.adapter is not None else ""
        return f"local:{folder_key(self.base)}{adapter}"

    @property
    def folder(self) -> Path | None:
        """Where rubrics of its own may lie."""
        return self.adapter or self.base


def find_judge(ref: str) -> JudgeModel:
    """A judge by name: `miniature`, a chat model as `find_base` finds it, or `api:PROVIDER/MODEL`.

    Raises JudgeError where there is none.
    """
    if ref.startswith(API):
        return JudgeModel(ref, None)
    try:
        base = find_base(ref)
    except BaseError as error:
        raise JudgeError(f"{ref!r} cannot judge: {error.what}", where=error.where, remedy=error.remedy) from None
    if base.is_miniature and base.judge is None:
        raise JudgeError("this miniature brings no judge with it", where=base.path, remedy="Build it again.")
    return JudgeModel(ref, base.path, base.judge)


def make_judge(found: JudgeModel, precision: str) -> Judge:
    """Loads the judge. This is the one place that says which kind of judge a model is.

    Raises JudgeError for a provider's model.
    """
    if found.base is None:
        raise JudgeError(f"{found.ref}: providers' models cannot judge yet", remedy="Give a folder or `miniature`.")
    judge: Judge = local.LocalJudge(found.base, found.adapter, precision)
    return judge
