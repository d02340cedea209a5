"""A judge as Inspect knows it: one of its models, which is asked through it as a provider's judge is asked by us."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from inspect_ai._util.error import PrerequisiteError  # what Inspect tells a person without a traceback
from inspect_ai.model import Model, get_model
from inspect_ai.util import LimitExceededError, collect, concurrency

from spillover.ask.capabilities import Capabilities, probe
from spillover.ask.connection import (
    Choice,
    Request,
    check_tables,
    choices_of,
    config_of,
    messages_of,
    no_answer,
    open_model,
)
from spillover.ask.failures import Failure, failure
from spillover.errors import ProviderError
from spillover.judge.provider import Way, judge_id, way_of
from spillover.judge.rubrics import Rubric
from spillover.records import Pair, Verdict
from spillover.spec import API

ROLE = "grader"
"""Inspect's name for the model that judges."""
TRIES = 3
"""How often a reply is asked for that comes without what was asked for; for all else Inspect tries again itself."""
NO_JUDGE = f"There is no judge: give --model-role {ROLE}=PROVIDER/MODEL, or -T judge=PROVIDER/MODEL."


class Grader:
    """A model of Inspect's that judges. Requests go through Inspect: its retries, its cache, its log."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._known: Capabilities | None = None
        self._proven = False

    @property
    def ref(self) -> str:
        """The model: PROVIDER/MODEL."""
        return str(self.model)

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.ref.split("/")[0]

    async def judge(self, pair: Pair, rubric: Rubric, samples: int) -> tuple[Verdict, str]:
        """The verdict on a pair, and who judged.

        Raises ProviderError where no request can succeed.
        """
        known = await self._capabilities()
        way = way_of(rubric, known, samples)
        size = known.choices
        parts = [way.seeds[at : at + size] for at in range(0, len(way.seeds), size)]
        found = await collect(*(self._part(way, pair, seeds, seeded=known.seeds) for seeds in parts))
        return way.verdict([choice for some in found for choice in some]), judge_id(known, samples)

    async def send(self, request: Request, *, seeded: bool = True, trying: bool = False) -> list[Choice]:
        """The choices of a request; see `spillover.ask.connection.Connection.send`."""
        for attempt in range(TRIES):
            choices = await self._once(request, seeded=seeded)
            try:
                if request.tops and not trying:
                    check_tables(choices)
                return choices
            except Failure:
                if attempt == TRIES - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _capabilities(self) -> Capabilities:
        """What the model can do, found out once by a few tiny requests."""
        if self._known is None:
            async with concurrency(f"finding out about {self.ref}", 1, visible=False):
                self._known = self._known or await probe(self)
        return self._known

    async def _part(self, way: Way, pair: Pair, seeds: Sequence[int], *, seeded: bool) -> list[Choice]:
        """A choice a seed. Those that the provider leaves out are asked for again."""
        choices: list[Choice] = []
        for _ in range(TRIES):
            missing = seeds[len(choices) :]
            request = Request((way.prompt(pair),), way.sampling, missing[0], len(missing), way.tops)
            try:
                choices += (await self.send(request, seeded=seeded))[: len(missing)]
            except Failure as failed:
                return choices + [no_answer(failed.outcome)] * len(missing)
            if len(choices) == len(seeds):
                return choices
        return choices + [no_answer("failed: too few choices")] * (len(seeds) - len(choices))

    async def _once(self, request: Request, *, seeded: bool) -> list[Choice]:
        try:
            output = await self.model.generate(messages_of(request.messages), config=config_of(request, seeded=seeded))
        except LimitExceededError:  # the evaluation's own
            raise
        except Exception as error:  # every provider's library has errors of its own
            found = failure(error, API + self.ref, None, proven=self._proven)
            if isinstance(found, Failure) and found.outcome == "blocked":
                return [no_answer("blocked")] * request.choices
            raise found from None
        self._proven = True
        return choices_of(output, request)


_GRADERS: "WeakKeyDictionary[Model, Grader]" = WeakKeyDictionary()


def find_grader(judge: str | None) -> Grader:
    """The judge of a name, `PROVIDER/MODEL`; the model in Inspect's role `grader` where none is named.

    Raises PrerequisiteError where there is none.
    """
    model = _named(judge) if judge is not None else _in_role()
    return _GRADERS.setdefault(model, Grader(model))


def _named(judge: str) -> Model:
    try:
        return open_model(judge.removeprefix(API), memoize=True)
    except ProviderError as error:
        raise PrerequisiteError(str(error)) from None


def _in_role() -> Model:
    try:
        return get_model(role=ROLE, required=True)
    except PrerequisiteError:
        raise PrerequisiteError(NO_JUDGE) from None
