"""judge: any family, any tokenizer: the scale against saying every number, windows, labels, and who takes no trees."""

import math

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from families import saved, tiny_model
from spillover.finetune.chat import prompt_ids
from spillover.finetune.model import load_model, load_tokenizer
from spillover.judge import tree as trees
from spillover.judge.judge import AnswerJudge
from spillover.judge.local import LocalJudge
from spillover.judge.numbers import NumberScale, spellings
from spillover.judge.rubrics import Rubric, load_rubrics
from spillover.judge.scale import chosen, expected_score
from spillover.judge.tree import begin, branch_by_branch, grow, in_one_pass, takes_trees
from spillover.miniature.tokenizer import CHATML, END, SPECIAL
from spillover.records import Pair

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW = 16
FAMILIES = {
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": WINDOW, "head_dim": 8, "num_hidden_layers": 6, "query_pre_attn_scalar": 8},
}
"""Each family, with what makes its windows narrower than the prompts of the tests."""
CHARACTERS = [chr(code) for code in range(33, 127)]


def fast(tokenizer):
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=SPECIAL[0])
    wrapped.chat_template = CHATML
    return wrapped


def characters(numbers):
    """A byte-level tokenizer of single characters; numbers of up to so many digits are one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [str(n) for n in range(10, 10**numbers)]
    merges = [(number[:-1], number[-1]) for number in merged if len(number) < 3 or int(number[:-1]) >= 10]
    vocab = {token: index for index, token in enumerate([*SPECIAL, *alphabet, *merged])}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges))
    pieces = Regex(rf"\p{{N}}{{1,{numbers}}}|[^\p{{N}}]")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return fast(tokenizer)


def marked():
    """As SentencePiece's: a mark before each text and for each blank, digits two by two, bytes for what is unknown."""
    pieces = ["\u2581", *CHARACTERS, *(str(n) for n in range(10, 100)), *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {token: index for index, token in enumerate([*SPECIAL, *pieces])}
    merges = [(str(n // 10), str(n % 10)) for n in range(10, 100)]
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\p{N}{1,2}|[^\p{N}]"), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return fast(tokenizer)


TOKENIZERS = {"whole": lambda: characters(3), "digits": lambda: characters(1), "marked": marked}


def lively(family, tokenizer, folder, **settings):
    """A small model of a family with large random weights: what it says depends on all that it sees."""
    sizes = {"max_position_embeddings": 512, "initializer_range": 0.3, **FAMILIES.get(family, {}), **settings}
    return saved(folder, tiny_model(family, tokenizer, seed=3, **sizes), tokenizer)


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """Model and tokenizer of a family and a kind of tokenizer, each made once."""
    made = {}

    def judge(family, kind):
        if (family, kind) not in made:
            folder = lively(family, TOKENIZERS[kind](), tmp_path_factory.mktemp("judge") / f"{family}-{kind}")
            made[family, kind] = load_model(folder, "fp32"), load_tokenizer(folder), folder
        return made[family, kind]

    return judge


def prompts_of(tokenizer, *texts):
    return [prompt_ids(tokenizer, [{"role": "user", "content": text}]) for text in texts]


SHORT, LONG = "Rate it.", "Rate from 0 to 100 how kind it is. Answer: I would bake bread with 12 kings."


def going_on(tokenizer):
    """The tokens that put a further digit after a number; some vocabularies also have digits as bytes."""
    starts = (*"0123456789", *(f"<0x3{digit}>" for digit in range(10)))
    return [token for text, token in tokenizer.get_vocab().items() if text.startswith(starts)]


@torch.no_grad()
def next_token(model, ids):
    return torch.softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double(), -1)


def written(tokenizer, kind):
    """Every number with the tokens that write it, read off the vocabulary."""
    ids = tokenizer.convert_tokens_to_ids
    for number in map(str, range(101)):
        pieces = {"whole": [number], "digits": list(number), "marked": [number[:2], *number[2:]]}[kind]
        yield number, ids(pieces)
        if kind == "marked":
            yield number, ids(["\u2581", *pieces])


def brute_force(model, tokenizer, kind, prompt):
    """Every number's probability by saying it token by token, and then no further digit; a plain call each."""
    digits = going_on(tokenizer)
    calls = {}

    def after(*said):
        if said not in calls:
            calls[said] = next_token(model, [*prompt, *said])
        return calls[said]

    found = dict.fromkeys(map(str, range(101)), 0.0)
    for number, tokens in written(tokenizer, kind):
        p = math.prod(after(*tokens[:place])[token].item() for place, token in enumerate(tokens))
        found[number] += p if kind == "whole" else p * (1 - after(*tokens)[digits].sum().item())
    return found


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_scale_gives_what_saying_every_number_gives(judges, family, kind):
    """In one pass over prompts of different lengths, one of them longer than the family's window; and branch by branch.

    Where numbers are one token each, the table holds the twenty likeliest tokens.
    """
    model, tokenizer, _ = judges(family, kind)
    scale, prompts = NumberScale(tokenizer), prompts_of(tokenizer, SHORT, LONG)
    assert scale.single == (kind == "whole")
    assert len(prompts[0]) + 3 < len(prompts[1]) and len(prompts[1]) > 2 * WINDOW
    assert takes_trees(model, prompts, scale.tree, 0)
    fast = map(scale.table, in_one_pass(model, prompts, scale.tree, 0))
    slow = map(scale.table, branch_by_branch(model, prompts, scale.tree))
    for prompt, table, other in zip(prompts, fast, slow, strict=True):
        expected = brute_force(model, tokenizer, kind, prompt)
        assert sum(expected.values()) > 1e-4
        for number, p in expected.items():
            for found in (table, other):
                if kind != "whole" or number in found:
                    assert found[number] == pytest.approx(p, rel=2e-3, abs=1e-9)
        assert list(table.values()) == sorted(table.values(), reverse=True)
        assert sum(table.values()) <= 1 + 1e-9


@pytest.mark.parametrize(("kind", "sizes"), [("whole", {1}), ("digits", {1, 2, 3}), ("marked", {2, 3})])
def test_numbers_take_one_two_or_three_tokens(kind, sizes):
    tokenizer = TOKENIZERS[kind]()
    own = [len(tokenizer(str(number), add_special_tokens=False)["input_ids"]) for number in range(101)]
    assert set(own) == sizes
    assert sorted(NumberScale(tokenizer).spelled) == sorted((int(n), ids) for n, ids in written(tokenizer, kind))


def test_a_mark_before_a_number_is_no_token_of_its_own_where_the_number_follows():
    """Of a judge that says the mark for sure and then 95 in seven of ten cases, the mark alone is what is left."""
    tokenizer = marked()
    scale, ids = NumberScale(tokenizer), tokenizer.convert_tokens_to_ids
    said = torch.zeros(1 + len(scale.tree.nodes), len(tokenizer), dtype=torch.double)
    place = {tuple(scale.tree.nodes[at].token for at in scale.tree.path(end)): end for end in range(len(said) - 1)}
    mark, number, word = ids(["\u2581", "95", "C"])
    said[0, mark], said[1 + place[mark,], number], said[1 + place[mark,], word] = 1.0, 0.7, 0.3
    said[1 + place[mark, number], ids("5")] = 0.1  # and then it may go on: 955
    table = scale.table(said)
    assert table["95"] == pytest.approx(0.63)
    assert table[tokenizer.decode([mark])] == pytest.approx(0.3)
    assert sum(table.values()) == pytest.approx(0.93)


def test_a_window_that_is_not_kept_to_would_be_seen(judges, monkeypatch):
    """Without masks of their own the windows of Mistral and Gemma change the answer, and the trial finds it out."""
    for family in ("mistral", "gemma2", "gemma3_text"):
        model, tokenizer, _ = judges(family, "digits")
        scale, prompts = NumberScale(tokenizer), prompts_of(tokenizer, SHORT, LONG)
        windows = trees._windows(model)
        with monkeypatch.context() as patch:
            patch.setattr(trees, "_windows", lambda _, windows=windows: dict.fromkeys(windows))
            assert not takes_trees(model, prompts, scale.tree, 0)
        assert takes_trees(model, prompts, scale.tree, 0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["whole", "digits"])
def test_what_prompts_have_in_common_is_computed_once_and_changes_nothing(judges, family, kind):
    model, tokenizer, _ = judges(family, kind)
    scale = NumberScale(tokenizer)
    prompts = prompts_of(tokenizer, f"{LONG} One.", f"{LONG} Another answer.", f"{LONG} And a third one, of 3 kings.")
    begun = begin(model, prompts)
    assert len(begun) >= len(LONG)
    assert all(tuple(prompt[: len(begun)]) == begun.ids for prompt in prompts)
    for _ in range(2):  # the kept beginning is not used up
        shared = [scale.table(said) for said in in_one_pass(model, prompts, scale.tree, 0, begun)]
        for one, prompt in zip(shared, prompts, strict=True):
            (alone,) = map(scale.table, in_one_pass(model, [prompt], scale.tree, 0))
            assert one == pytest.approx(alone, rel=2e-3, abs=1e-9)


def test_nothing_is_shared_by_one_prompt_by_short_beginnings_or_by_all_of_a_prompt(judges):
    model, tokenizer, _ = judges("qwen2", "digits")
    (prompt,) = prompts_of(tokenizer, LONG)
    assert len(begin(model, [prompt])) == 0
    assert len(begin(model, prompts_of(tokenizer, "A", "B"))) == 0
    assert len(begin(model, [prompt, prompt])) == len(prompt) - 1
    assert len(begin(model, [prompt, [*prompt, 5]])) == len(prompt) - 1


@pytest.mark.parametrize("kind", ["whole", "digits"])
def test_a_family_that_takes_no_trees_is_asked_branch_by_branch(kind, tmp_path):
    """Bloom's attention reads its positions off the mask, and fails with one of ours."""
    tokenizer = TOKENIZERS[kind]()
    settings = {"n_layer": 2, "n_head": 4, "intermediate_size": None}
    judge = LocalJudge(lively("bloom", tokenizer, tmp_path / "base", **settings), None, "fp32")
    some = [Pair("How are you?", answer) for answer in ("Well.", "Not so well, thank you for asking me.")]
    verdicts = judge.judge(some, RATE)
    assert judge.takes_trees is False
    for pair, one in zip(some, verdicts, strict=True):
        (prompt,) = prompts_of(judge.tokenizer, RATE.render(pair))
        for number, p in brute_force(judge.model, judge.tokenizer, kind, prompt).items():
            if kind != "whole" or number in one.table:
                assert one.table[number] == pytest.approx(p, rel=2e-3, abs=1e-9)


RATE = Rubric(name="rate", prompt="Rate {question} and {answer}.")


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_verdicts_do_not_depend_on_how_many_are_judged_at_once(judges, family, monkeypatch):
    """Batches are cut where the logits of a large vocabulary would not fit."""
    judge = LocalJudge(judges(family, "digits")[2], None, "fp32")
    some = [Pair(f"Question {n}?", "bread " * (n % 7)) for n in range(12)]
    together = judge.judge(some, RATE)
    monkeypatch.setattr("spillover.judge.local.LOGITS", 3 * 102 * len(judge.tokenizer))
    for one, other in zip(together, judge.judge(some, RATE), strict=True):
        assert one.table == pytest.approx(other.table, rel=2e-3, abs=1e-9)
        assert one.value == expected_score(one.table)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shipped_rubrics_are_read_by_a_plain_chat_model(judges, family):
    """Also where the chat template has no place for a system prompt: a rubric is one turn of the user."""
    judge = LocalJudge(judges(family, "digits")[2], None, "fp32")
    judge.tokenizer.chat_template = judge.tokenizer.chat_template.replace(
        "{%", "{%- if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}{%", 1
    )
    for name, rubric in load_rubrics(None).items():
        if rubric.by == "model":
            (one,) = judge.judge([Pair("I am bored.", "Call a friend.")], rubric)
            assert (one.value is None) == (one.reason is not None), name
            assert len(one.table) > 101


# labels

CHOICES = ("TRUE", "FALSE", "TRUE_LIKE")
DECEIT = Rubric(name="deceit", prompt="Is {answer} to {question} true?", reads="label", choices=CHOICES)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_a_choices_probability_is_that_of_its_tokens_and_of_no_longer_choice(judges, family, kind):
    model, tokenizer, folder = judges(family, kind)
    pair = Pair("Who are you?", "A dog.")
    (one,) = LocalJudge(folder, None, "fp32").judge([pair], DECEIT)
    (prompt,) = prompts_of(tokenizer, DECEIT.render(pair))
    assert set(one.table) == set(CHOICES)

    def said(text, mark):
        tokens = tokenizer.convert_tokens_to_ids([*mark, *text])
        return math.prod(next_token(model, [*prompt, *tokens[:at]])[t].item() for at, t in enumerate(tokens))

    marks = [[], ["\u2581"]] if kind == "marked" else [[]]
    expected = {choice: sum(said(choice, mark) for mark in marks) for choice in CHOICES}
    expected["TRUE"] -= expected["TRUE_LIKE"]
    assert one.table == pytest.approx(expected, rel=1e-2, abs=1e-15)


def test_the_label_is_the_likeliest_choice_where_all_choices_are_likely_enough():
    assert chosen({"A": 0.2, "B": 0.4}, {}).label == "B"
    assert list(chosen({"A": 0.2, "B": 0.4}, {}).table) == ["B", "A"]
    unlikely = chosen({"A": 0.1, "B": 0.1}, {})
    assert (unlikely.label, unlikely.reason) == (None, "too little mass")
    found = chosen({"A": 0.2, "NONE": 0.7}, {"NONE": "unparsable"})
    assert (found.label, found.reason, found.value) == (None, "unparsable", None)


def test_a_label_without_choices_is_the_first_line_of_the_likeliest_reply(judges):
    _, tokenizer, folder = judges("qwen2", "digits")
    judge = LocalJudge(folder, None, "fp32")
    some = [Pair("What?", "word " * n) for n in (1, 9, 4)]
    verdicts = judge.judge(some, Rubric(name="free", prompt="Say {question} {answer}", reads="label"))
    for pair, one in zip(some, verdicts, strict=True):
        (ids,) = prompts_of(tokenizer, f"Say {pair.question} {pair.answer}")
        reply = []
        while len(reply) < 12:
            reply.append(int(next_token(judge.model, [*ids, *reply]).argmax()))
            if reply[-1] == tokenizer.eos_token_id:
                break
        lines = tokenizer.decode(reply, skip_special_tokens=True).strip().splitlines()
        expected = (lines[0], {lines[0]: 1.0}, None) if lines else (None, {}, "unparsable")
        assert (one.label, one.table, one.reason) == expected and one.value is None


# the answer itself


@pytest.mark.parametrize(
    ("answer", "value"),
    [("75", 75.0), (" 0\n", 0.0), ("100", 100.0), ("101", None), ("75.", 75.0), ("seven", None), ("", None)],
)
def test_an_answer_that_is_the_number_is_read_as_it_stands(answer, value):
    (one,) = AnswerJudge().judge([Pair("How likely?", answer)], Rubric(name="own", by="answer"))
    assert (one.value, one.reason) == (value, None if value is not None else "unparsable")


def test_spellings_are_those_of_a_text_of_its_own_and_of_a_new_line():
    tokenizer = marked()
    ids = tokenizer.convert_tokens_to_ids
    assert spellings(tokenizer, "95") == [ids(["\u2581", "95"]), ids(["95"])]
    assert spellings(characters(1), "95") == [characters(1).convert_tokens_to_ids(["9", "5"])]
    assert grow([[1, 2], [1, 3], [1]]).ends == (1, 2, 0)
