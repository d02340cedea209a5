"""Models by name, for those who make datasets or look into them: one that writes, one that judges.

What they said is kept in the lab, so that nothing is asked, or paid for, twice, and a command that was killed goes on.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillover.ask.access import Access, open_access
from spillover.ask.asker import Asked, Asker, Reply, answer_seed
from spillover.ask.journal import Journal
from spillover.ask.kept import KeptAsker
from spillover.ask.usage import Usage
from spillover.finetune.base import Base, find_base
from spillover.judge.judge import Judge
from spillover.judge.kept import KeptJudge
from spillover.judge.make import find_judge, id_of, make_judge
from spillover.judge.rubrics import Rubric, find_rubric, load_rubrics
from spillover.lazy import lazy
from spillover.records import Pair, Question, Verdict
from spillover.spec import API, Chat, Machine, Requests, Sampling, Training
from spillover.store import PROVIDERS, WRITTEN, Lab, open_lab

local_asker = lazy("spillover.ask.local")
provider_asker = lazy("spillover.ask.provider")


@dataclass(frozen=True)
class Writer:
    """A model that writes.

    Attributes:
        id: who it is, as a manifest names it: how it was asked for, and the hash of a local model's weights.
        base: the model.
        asker: who asks it; replies are kept.
    """

    id: str
    base: Base
    asker: Asker

    def write(self, questions: Sequence[Question], sampling: Sampling, samples: int = 1) -> list[list[Reply]]:
        """So many replies a question, in order; each depends on the model, the question and its number alone.

        A reply that a provider did not give has an `outcome` that says why; such a one is asked for again next time.

        Raises ProviderError where the model cannot be asked at all.
        """
        asked = [Asked(q, tuple(answer_seed(self.id, q, number) for number in range(samples))) for q in questions]
        return self.asker.ask(None, asked, sampling)


@dataclass(frozen=True)
class Assessor:
    """A model that judges.

    Attributes:
        id: who it is, as it stands beside its verdicts.
        judge: who judges; verdicts are kept.
        rubrics: by name: those that lie beside a local judge before the package's.
    """

    id: str
    judge: Judge
    rubrics: dict[str, Rubric]

    def rubric(self, name: str) -> Rubric:
        """The rubric of a name. Raises JudgeError for an unknown one."""
        return find_rubric(name, self.rubrics)

    def assess(self, pairs: Sequence[Pair], rubric: str | Rubric) -> list[Verdict]:
        """A verdict a pair, in order. Raises JudgeError for an unknown rubric."""
        return self.judge.judge(pairs, self.rubric(rubric) if isinstance(rubric, str) else rubric)


class Models:
    """Writers and judges that are opened from one lab; made by `open_models`.

    Attributes:
        usage: what they were asked: local ones by their `id`, providers' by name (PROVIDER/MODEL).
    """

    def __init__(self, lab: Lab, stack: ExitStack, requests: Requests, machine: Machine) -> None:
        self.lab, self.machine, self.usage = lab, machine, Usage()
        self._stack, self._requests = stack, requests
        self._access: Access | None = None
        self._journal: Journal | None = None

    def writer(self, ref: str, chat: Chat = Chat()) -> Writer:
        """A model that writes, by name: as `base:` takes it in an experiment.

        Raises BaseError or ProviderError where there is none.
        """
        base = find_base(ref, chat)
        if base.is_hosted:
            hosted = provider_asker.ProviderAsker(base.ref, self.access)
            return Writer(base.ref, base, self._stack.enter_context(hosted))
        asker = local_asker.LocalAsker(base.fetched(), Training().precision, chat, self.machine)
        name = f"{base.ref} (local:{base.key})"
        kept = KeptAsker(asker, f"{base.key}:{chat.key()}", self.journal, use=self.usage.of(name))
        return Writer(name, base, kept)

    def judge(self, ref: str) -> Assessor:
        """A model that judges, by name: as `judge:` takes it in an experiment.

        Raises JudgeError or ProviderError where it cannot judge.
        """
        found = find_judge(ref)
        judge: Any = make_judge(found, Training().precision, self.machine, self.access if found.is_hosted else None)
        if hasattr(judge, "close"):
            self._stack.callback(judge.close)
        name = id_of(judge, found)
        use = self.usage.of(ref.removeprefix(API) if found.is_hosted else name)
        return Assessor(name, KeptJudge(judge, name, self.journal, use=use), load_rubrics(found.folder))

    @property
    def access(self) -> Access:
        """How providers are asked; their replies are kept in the lab's own journal of requests."""
        if self._access is None:
            self._access = self._stack.enter_context(open_access(self.lab.root / PROVIDERS, self._requests, self.usage))
        return self._access

    @property
    def journal(self) -> Journal:
        """What local models wrote and what judges said."""
        if self._journal is None:
            folder = self.lab.root / WRITTEN
            folder.mkdir(exist_ok=True)
            self._journal = self._stack.enter_context(Journal(folder / "replies.jsonl"))
        return self._journal


@contextmanager
def open_models(lab: Path, requests: Requests = Requests(), machine: Machine = Machine()) -> Iterator[Models]:
    """Opens a lab for models that write and judge; its journals and connections are closed afterwards.

    Raises LabError where the lab cannot be written to or another process works in it.
    """
    with ExitStack() as stack:
        yield Models(stack.enter_context(open_lab(lab)), stack, requests, machine)
