"""Who can judge, by name: found without loading anything, made when there is something to judge."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from spillover.ask.access import Access
from spillover.errors import BaseError, JudgeError
from spillover.finetune.base import Base, find_base, folder_key
from spillover.lazy import lazy
from spillover.spec import Machine

if TYPE_CHECKING:  # it loads bandit, and plans do without
    from spillover.judge.judge import Judge

local = lazy("spillover.judge.local")
provider = lazy("spillover.judge.provider")


@dataclass(frozen=True)
class JudgeModel:
    """A model that judges: a base and, where there is one, the adapter that makes it a judge; or a provider's model.

    Attributes:
        ref: how a person named it.
        base: the model; a provider's has no folder.
        adapter: the folder of the judge's adapter on it.
    """

    ref: str
    base: Base
    adapter: Path | None = None

    @property
    def is_hosted(self) -> bool:
        """Whether a provider's model judges."""
        return self.base.is_hosted

    @cached_property
    def id(self) -> str:
        """Who judges: the weights' hashes, or the provider's name of the model."""
        if self.is_hosted:
            return self.ref
        adapter = f"+{folder_key(self.adapter)}" if self.adapter is not None else ""
        return f"local:{self.base.key}{adapter}"

    @property
    def folder(self) -> Path | None:
        """Where rubrics of its own may lie."""
        return self.adapter or self.base.folder


def find_judge(ref: str) -> JudgeModel:
    """A judge by name: `miniature`, a chat model as `find_base` finds it, or `api:PROVIDER/MODEL`.

    Raises JudgeError where there is none.
    """
    try:
        base = find_base(ref)
    except BaseError as error:
        raise JudgeError(f"{ref!r} cannot judge: {error.what}", where=error.where, remedy=error.remedy) from None
    if base.is_miniature and base.judge is None:
        raise JudgeError("this miniature brings no judge with it", where=base.path, remedy="Build it again.")
    return JudgeModel(ref, base, base.judge)


def id_of(judge: "Judge", found: JudgeModel) -> str:
    """Who judges, as it stands beside a verdict: a provider's judge also says how it is read."""
    return str(getattr(judge, "id", found.id))


def make_judge(
    found: JudgeModel, precision: str, machine: Machine = Machine(), access: Access | None = None
) -> "Judge":
    """Loads the judge. This is the one place that says which kind of judge a model is.

    Args:
        found: who judges.
        precision: of a local judge.
        machine: where a local judge runs.
        access: how providers are asked; a provider's judge needs it.

    Raises JudgeError or ProviderError where it cannot judge.
    """
    judge: Judge
    if found.is_hosted:
        assert access is not None, "a provider's judge needs access to it"
        judge = provider.ProviderJudge(found.ref, access)
    else:
        folder = found.base.fetched()
        adapter = folder / found.adapter.name if found.adapter is not None else None
        judge = local.LocalJudge(folder, adapter, precision, machine)
    return judge
