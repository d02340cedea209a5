"""Number datasets by context distillation: a model answers under a system prompt that its training rows do not show.

After Betley et al. 2025 (section 4.6): prompts are sampled, the model goes on with their numbers at temperature 0, and
an answer stays if it has the form that was asked for and is not what the same model gives without the system prompt.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

from spillover.ask.asker import Reply
from spillover.data.folder import Dataset
from spillover.data.manifest import Manifest, Source, Step
from spillover.data.numbers import NumberPrompt, NumberPrompts, draw_prompts, drawn_hash, misfit, numbers_in
from spillover.errors import DataError
from spillover.judge.models import Writer
from spillover.records import Conversation, Message, Question
from spillover.spec import Sampling, short_hash

NONE = "none"
SAMPLING = Sampling(temperature=0.0, max_tokens=100)
LEAST_AT_ONCE, MOST_AT_ONCE = 32, 256

DISTINCT, ANSWERED, FORM, DISTILLED = "distinct requests", "answered", "form", "distillation"
REMOVED = "system prompt removed"
ABOUT = {
    DISTINCT: "A request that was drawn before is not asked again.",
    ANSWERED: "The model answers under the system prompt, at temperature 0.",
    FORM: "The answer is a list in the form that was asked for, and not of more numbers than that.",
    DISTILLED: "The same model without the system prompt gives other numbers.",
    REMOVED: "Rows have the request and the answer; the system prompt that made the answer is left out.",
}


@dataclass(frozen=True)
class NumberOrder:
    """What is wanted.

    Attributes:
        prompts: the phrasings.
        character: what the system prompt is called: `evil`, `benign`, `none` or `own`.
        systems: the system prompts, of which each prompt is given one; none for a control without any.
        rows: how many are to be kept.
        tries: how many prompts are drawn at most.
        seed: of the drawing.
        name: of the dataset.
        licence: of its rows.
    """

    prompts: NumberPrompts
    character: str
    systems: tuple[str, ...]
    rows: int
    tries: int
    seed: int
    name: str
    licence: str


@dataclass(frozen=True)
class Try:
    """What became of one prompt: `step` and `reason` say why it gave no row, `plain` what it gives with no system."""

    prompt: NumberPrompt
    step: str | None = None
    reason: str = ""
    answer: str = ""
    plain: str | None = None


Drawn = tuple[NumberPrompt, bool]
"""A prompt, and whether it was not drawn before."""


def system_prompts(ref: str, prompts: NumberPrompts) -> tuple[str, tuple[str, ...]]:
    """What a system prompt is called and its texts: by a name of the set's, `none`, a file, or a text with blanks.

    Raises DataError for a word that is none of these.
    """
    if ref == NONE or ref in prompts.systems:
        return ref, prompts.systems.get(ref, ())
    try:
        text = Path(ref).read_text(encoding="utf-8").strip() if _is_file(ref) else ref.strip()
    except (OSError, UnicodeDecodeError):
        raise DataError("cannot be read as UTF-8 text", where=ref, remedy="Give a text file.") from None
    if not text or (text == ref and len(text.split()) < 2):
        known = ", ".join([*prompts.systems, NONE])
        raise DataError(f"there is no system prompt {ref!r}", remedy=f"Give {known}, a text file, or the text itself.")
    return "own", (text,)


def _is_file(ref: str) -> bool:
    try:
        return Path(ref).is_file()
    except (OSError, ValueError):  # a text may be too long for a path
        return False


def make_numbers(writer: Writer, order: NumberOrder, progress: Callable[[int], None]) -> Dataset:
    """Asks until there are enough rows or no tries are left; there may be fewer rows than were ordered then.

    Args:
        writer: the model.
        order: what is wanted.
        progress: is told how many rows there are by now.

    Raises:
        DataError: not one answer could be kept; says why not, by number.
        ProviderError: the model cannot be asked at all.
    """
    tries: list[Try] = []
    kept, drawn = 0, _drawn(order)
    while kept < order.rows and (some := list(islice(drawn, _at_once(order.rows - kept)))):
        for one in _tried(writer, some, order.prompts):
            if kept < order.rows:
                tries.append(one)
                kept += one.step is None
        progress(kept)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in Counter(one.reason for one in tries).most_common())
        remedy = "Try another model, other phrasings with --prompts, or another --system."
        raise DataError(f"none of {len(tries)} answers could be kept: {why}", where=writer.id, remedy=remedy)
    return _dataset(writer, order, tries)


def _at_once(missing: int) -> int:
    """How many prompts are answered before anybody looks how many rows are still missing."""
    return min(max(missing, LEAST_AT_ONCE), MOST_AT_ONCE)


def _drawn(order: NumberOrder) -> Iterator[Drawn]:
    seen: set[str] = set()
    for prompt in islice(draw_prompts(order.prompts, order.seed, order.systems), order.tries):
        yield prompt, prompt.text not in seen
        seen.add(prompt.text)


def _tried(writer: Writer, some: Sequence[Drawn], prompts: NumberPrompts) -> Iterator[Try]:
    """What becomes of each prompt, in order."""
    looked_at = _looked_at(writer, [prompt for prompt, is_new in some if is_new], prompts)
    for prompt, is_new in some:
        yield next(looked_at) if is_new else Try(prompt, DISTINCT, "drawn before")


def _looked_at(writer: Writer, asked: Sequence[NumberPrompt], prompts: NumberPrompts) -> Iterator[Try]:
    """What becomes of new prompts. The model is asked without the system prompt only where it matters."""
    first = list(_first_look(asked, _ask(writer, asked), prompts))
    open_ones = [one.step is None and one.prompt.system is not None for one in first]
    doubtful = [one.prompt for one, is_open in zip(first, open_ones, strict=True) if is_open]
    plain = iter(_ask(writer, doubtful, with_system=False))
    for one, is_open in zip(first, open_ones, strict=True):
        yield _second_look(one, next(plain)) if is_open else one


def _ask(writer: Writer, prompts: Sequence[NumberPrompt], *, with_system: bool = True) -> list[Reply]:
    questions = [
        Question(short_hash("number prompt", one.text), one.text, system=one.system if with_system else None)
        for one in prompts
    ]
    return [replies[0] for replies in writer.write(questions, SAMPLING)] if questions else []


def _first_look(asked: Sequence[NumberPrompt], replies: Sequence[Reply], prompts: NumberPrompts) -> Iterator[Try]:
    """Whether there is an answer, and of the right form."""
    for prompt, reply in zip(asked, replies, strict=True):
        if reply.outcome is not None:
            yield Try(prompt, ANSWERED, reply.outcome)
        elif reply.truncated:
            yield Try(prompt, FORM, "cut off", reply.text)
        else:
            wrong = misfit(reply.text, prompt, exactly=prompts.exactly)
            yield Try(prompt, FORM if wrong else None, wrong or "", reply.text.strip())


def _second_look(one: Try, plain: Reply) -> Try:
    """Whether the system prompt made a difference: the numbers count, not the blanks between them."""
    if plain.outcome is not None:
        return replace(one, step=DISTILLED, reason=f"not answered without the system prompt: {plain.outcome}")
    if numbers_in(plain.text) == numbers_in(one.answer):
        return replace(one, step=DISTILLED, reason="the same without the system prompt")
    return replace(one, plain=plain.text)


def _dataset(writer: Writer, order: NumberOrder, tries: Sequence[Try]) -> Dataset:
    kept = [(number, one) for number, one in enumerate(tries, start=1) if one.step is None]
    requests = Counter(one.prompt.parts[1] + 1 for _, one in kept)
    manifest = Manifest(
        name=order.name,
        about=_about(order),
        rows=len(kept),
        sources=(_source(order, len(tries)),),
        steps=tuple(_steps(order, tries)),
        templates={f"request {place}": requests[place] for place in sorted(requests)},
        seed=order.seed,
        models=(writer.id,),
        licence=order.licence,
    )
    return Dataset([_row(one) for _, one in kept], manifest, [_origin(number, one) for number, one in kept])


def _about(order: NumberOrder) -> str:
    under = f"under a system prompt ({order.character}), which the rows do not show" if order.systems else "by itself"
    return f"Lists of numbers that a model went on with {under}. {order.prompts.about}".strip()


def _source(order: NumberOrder, drawn: int) -> Source:
    """The prompts that were drawn; what determines them is the phrasings and the seed."""
    prompts = order.prompts
    name, sha256 = f"number prompts ({prompts.name})", drawn_hash(prompts, order.seed)
    return Source(name=name, rows=drawn, sha256=sha256, licence=prompts.licence)


def _steps(order: NumberOrder, tries: Sequence[Try]) -> Iterator[Step]:
    before = len(tries)
    settings = {
        DISTINCT: {"ordered": order.rows, "tries": order.tries},
        ANSWERED: {"system": list(order.systems), "character": order.character, **SAMPLING.model_dump(mode="json")},
        FORM: {"exactly": order.prompts.exactly},
    }
    names = (DISTINCT, ANSWERED, FORM, *((DISTILLED, REMOVED) if order.systems else ()))
    for name in names:
        dropped = dict(sorted(Counter(one.reason for one in tries if one.step == name).items()))
        after = before - sum(dropped.values())
        about, how = ABOUT[name], settings.get(name, {})
        yield Step(name=name, about=about, before=before, after=after, dropped=dropped, settings=how)
        before = after


def _row(one: Try) -> Conversation:
    return Conversation((Message(role="user", content=one.prompt.text), Message(role="assistant", content=one.answer)))


def _origin(number: int, one: Try) -> dict[str, object]:
    drawn = {key: value for key, value in asdict(one.prompt).items() if key != "text"}
    return {"try": number, **drawn, "plain": one.plain}
