"""Whether questions with a context fit the base: before anything is written, where something is still to do."""

from spillover.errors import QuestionError
from spillover.finetune.base import context_length
from spillover.lazy import lazy
from spillover.pipeline.datasets import TURN
from spillover.pipeline.plan import Plan
from spillover.records import Question

local_asker = lazy("spillover.ask.local")
models = lazy("spillover.finetune.model")


def check_fit(plan: Plan) -> None:
    """Raises QuestionError for a question that does not fit the base with its context and the longest answer.

    No text has more tokens than bytes, so most need no tokenizer to be told that they fit.
    """
    context = None if plan.base.is_hosted else context_length(plan.base.path)
    if context is None:
        return
    room = context - plan.experiment.sampling.max_tokens
    for (suite, _), question in plan.questions.items():
        if question.context and _bytes(question) > room:
            _check(plan, suite, question, room)


def _bytes(question: Question) -> int:
    return sum(len(message["content"].encode()) + TURN for message in question.messages())


def _check(plan: Plan, suite: str, question: Question, room: int) -> None:
    tokenizer = models.load_tokenizer(plan.base.path)
    tokens = len(local_asker.question_ids(tokenizer, question, plan.experiment.chat))
    if tokens > room:
        what = f"has {tokens:,} tokens with its context, and the base has room for {room:,} beside an answer"
        remedy = "Set the variant's `k` lower: fewer examples, or `sampling.max_tokens`."
        raise QuestionError(what, where=f"suite {suite}, question {question.id}", remedy=remedy)
