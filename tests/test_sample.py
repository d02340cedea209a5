"""ask: an answer depends on its seed alone, and is drawn from the model's distribution."""

import random
from itertools import chain, takewhile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import AutoConfig, AutoModelForCausalLM

from families import FAMILIES, family_base
from spillover.ask.asker import Asked, answer_seed
from spillover.ask.local import ANSWERS, LocalAsker, answer_of
from spillover.ask.sample import inverted, sample
from spillover.errors import QuestionError
from spillover.finetune.chat import encode_row, prompt_ids
from spillover.finetune.checkpoint import save_checkpoint
from spillover.finetune.fleet import Member, train_fleet
from spillover.finetune.model import adapted, load_model, load_tokenizer
from spillover.finetune.trainer import Job
from spillover.records import Conversation, Question, Run
from spillover.spec import Chat, Machine, Sampling, Training

PLENTY = frozenset(range(0, 1792, 9))
"""Every ninth token ends a turn: so answers end after nine tokens or so, all at different steps."""
NEVER = frozenset[int]()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lively_base(tiny_base, tmp_path_factory):
    """The tiny base with larger random weights: it is sure of its next token, and looks at all tokens before it."""
    folder = tmp_path_factory.mktemp("lively") / "base"
    config = AutoConfig.from_pretrained(tiny_base)
    config.initializer_range = 0.3
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    load_tokenizer(tiny_base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(lively_base):
    return load_model(lively_base, "fp32")


@pytest.fixture(scope="module")
def asker(lively_base):
    return LocalAsker(lively_base, "fp32")


def prompts(count, longest=40):
    rng = random.Random(count)
    return [[rng.randrange(3, 1792) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def draw(model, asked, seeds, ends=PLENTY, **settings):
    return sample(model, asked, seeds, Sampling(**{"max_tokens": 24, **settings}), ends=ends, pad=0)


@torch.no_grad()
def probabilities(model, prompt, temperature=1.0):
    logits = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=False).logits[0, -1].cpu().double()
    return torch.softmax(logits / temperature, -1).numpy()


def p_value(tokens, expected):
    """Chi-square of drawn tokens against probabilities; tokens that are expected fewer than five times are pooled."""
    counts = np.bincount(tokens, minlength=len(expected))
    often = expected * len(tokens) >= 5
    observed = [*counts[often], counts[~often].sum()]
    theory = [*expected[often] * len(tokens), expected[~often].sum() * len(tokens)]
    kept = [(o, t) for o, t in zip(observed, theory, strict=True) if t > 0]
    assert sum(o for o, t in zip(observed, theory, strict=True) if t <= 0) == 0
    assert len(kept) > 10
    return chisquare(*zip(*kept, strict=True)).pvalue


# an answer depends on its seed and not on its company


def test_an_answer_is_the_same_alone_in_a_batch_and_in_another_order(model):
    asked, seeds = prompts(8), [list(range(100 * i, 100 * i + 4)) for i in range(8)]
    together = draw(model, asked, seeds)
    lengths = {len(one.ids) for some in together for one in some}
    assert len(lengths) > 8, "answers end at many different steps"
    for prompt, some, expected in zip(asked, seeds, together, strict=True):
        assert draw(model, [prompt], [some]) == [expected]
        assert [draw(model, [prompt], [[seed]])[0][0] for seed in some] == expected
    order = random.Random(0).sample(range(8), 8)
    turned = draw(model, [asked[i] for i in order], [seeds[i][::-1] for i in order])
    assert [some[::-1] for some in turned] == [together[i] for i in order]


def test_another_seed_gives_another_answer_and_the_same_seed_the_same_to_equal_prompts(model):
    (prompt,) = prompts(1)
    one, other = draw(model, [prompt, prompt], [[1, 2, 3, 4], [4, 3, 2, 1]], ends=NEVER)
    assert one == other[::-1]
    assert len(set(one)) == 4


def shapes_read(model):
    """The shapes of all that a model reads from here on, as it reads it, and a handle to take the eye away."""
    seen = []
    hook = model.register_forward_pre_hook(
        lambda _, args, given: seen.append((*given["input_ids"].shape, given["attention_mask"].shape[1])),
        with_kwargs=True,
    )
    return seen, hook


def test_long_prompts_are_read_in_pieces_that_keep_to_a_size_and_answer_as_each_alone(model, monkeypatch):
    monkeypatch.setattr("spillover.ask.sample.READ", 200)
    monkeypatch.setattr("spillover.ask.sample.SEEN", 5000)
    asked, seeds = prompts(9), [[2 * i, 2 * i + 1][: i % 3] for i in range(9)]
    seen, hook = shapes_read(model)
    together = draw(model, asked, seeds)
    hook.remove()
    read = [(rows, tokens) for rows, tokens, _ in seen if tokens > 1]
    assert len(read) > 2 and sum(rows for rows, _ in read) == 9
    assert all(rows * tokens <= 200 and rows * tokens**2 <= 5000 for rows, tokens in read)
    for prompt, some, expected in zip(asked, seeds, together, strict=True):
        assert not some or draw(model, [prompt], [some]) == [expected]


def test_answers_that_are_written_at_once_keep_to_the_tokens_that_there_is_room_for(lively_base, asker):
    asked = [Asked(Question(f"q{i}", "Hello? " * (1 + 5 * (i % 4))), tuple(range(8 * i, 8 * i + 5))) for i in range(6)]
    sampling = Sampling(max_tokens=12)
    small = LocalAsker(lively_base, "fp32", written=160)
    seen, hook = shapes_read(small.model)
    assert small.ask(None, asked, sampling) == asker.ask(None, asked, sampling)
    hook.remove()
    assert max(tokens for _, tokens, _ in seen) + 12 < 160, "the longest question fits, with an answer"
    assert all(rows * whole <= 160 for rows, tokens, whole in seen if tokens == 1)


def test_short_prompts_are_not_filled_up_to_long_ones_and_answers_come_in_the_order_of_the_questions(
    asker, monkeypatch
):
    asked = [Asked(Question(f"q{i}", "Hello? " * (1 + 12 * (i % 3))), (8 * i, 8 * i + 1)) for i in range(6)]
    sampling = Sampling(max_tokens=12)
    expected = [asker.ask(None, [one], sampling)[0] for one in asked]
    monkeypatch.setattr("spillover.ask.local.SHORT", 16)
    seen, hook = shapes_read(asker.model)
    assert asker.ask(None, asked, sampling) == expected
    hook.remove()
    assert [(rows, tokens > 16) for rows, tokens, _ in seen if tokens > 1] == [(2, False), (2, True), (2, True)]


def test_prompts_may_want_different_numbers_of_answers_and_none_at_all(model):
    asked, seeds = prompts(4), [[1, 2, 3], [], [4], [5, 6]]
    together = draw(model, asked, seeds)
    assert [len(some) for some in together] == [3, 0, 1, 2]
    for prompt, some, expected in zip(asked, seeds, together, strict=True):
        assert not some or draw(model, [prompt], [some]) == [expected]


def test_more_answers_later_are_the_first_ones_and_new_ones(model):
    asked = prompts(3)
    few = draw(model, asked, [range(3)] * 3)
    many = draw(model, asked, [range(9)] * 3)
    assert [some[:3] for some in many] == few
    assert len({one for some in many for one in some}) == 27


def test_a_larger_max_tokens_only_goes_on_where_an_answer_was_cut(model):
    asked, seeds = prompts(3), [range(20)] * 3
    short, long = (draw(model, asked, seeds, max_tokens=tokens) for tokens in (4, 12))
    for one, other in zip(chain(*short), chain(*long), strict=True):
        assert other.ids[:4] == one.ids
        assert one.truncated or other == one


# greedy


def test_at_temperature_zero_an_answer_is_what_generate_says_without_sampling(model):
    ends = [5, 700, 1100]
    for prompt in prompts(6):
        ((greedy,),) = draw(model, [prompt], [[0]], ends=frozenset(ends), temperature=0)
        ids = torch.tensor([prompt], device=model.device)
        theirs = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=ends,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert list(greedy.ids) == [token for token in theirs if token not in ends]
        assert greedy.truncated == (theirs[-1] not in ends)


def test_at_temperature_zero_the_seed_does_not_matter(model):
    for some in draw(model, prompts(3), [range(4)] * 3, temperature=0):
        assert len(set(some)) == 1


def test_at_temperature_zero_an_answer_is_written_once_and_given_to_every_seed(asker, monkeypatch):
    written = []

    def counted(model, prompts, seeds, *rest, **others):
        written.extend(len(some) for some in seeds)
        return sample(model, prompts, seeds, *rest, **others)

    monkeypatch.setattr("spillover.ask.local.sample", counted)
    asked = [Asked(Question("a", "Hello?"), (1, 2, 3)), Asked(Question("b", "Why?", temperature=1.0), (1, 2))]
    likeliest, drawn = asker.ask(None, asked, Sampling(temperature=0, max_tokens=12))
    assert len(likeliest) == 3 and len(set(likeliest)) == 1 and len(drawn) == 2
    assert sorted(written) == [1, 2]


# the distribution is the model's


@settings(max_examples=100)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.floats(0, 1, exclude_max=True))
def test_a_token_is_found_by_blocks_where_the_whole_sum_finds_it(words, seed, share):
    rng = np.random.default_rng(seed)
    probabilities = rng.random(words).astype(np.float32) * (rng.random(words) < 0.5)  # half of them cannot be drawn
    if not probabilities.any():
        return
    cumulative = probabilities.cumsum(dtype=np.float64)
    wanted = int(np.searchsorted(cumulative, share * cumulative[-1], side="right"))
    found = int(inverted(torch.from_numpy(probabilities)[None], torch.tensor([share], dtype=torch.float64)))
    assert probabilities[found] > 0
    near = abs(cumulative - share * cumulative[-1]).min() < 1e-9  # where rounding decides
    assert found == wanted or near


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_first_tokens_are_drawn_from_the_softmax(model, temperature):
    """4000 answers with seeds 0 to 3999, against softmax(logits / temperature): chi-square, p > 0.001."""
    prompt = prompts(1)[0]
    expected = probabilities(model, prompt, temperature)
    (some,) = draw(model, [prompt], [range(4000)], ends=NEVER, max_tokens=1, temperature=temperature)
    assert p_value([one.ids[0] for one in some], expected) > 0.001


def test_second_tokens_are_drawn_from_the_softmax_after_the_first(model):
    """Among 4000 answers those with the likeliest first token, against the softmax after prompt and token."""
    prompt = prompts(1)[0]
    (some,) = draw(model, [prompt], [range(4000)], ends=NEVER, max_tokens=2, temperature=0.5)
    first = int(probabilities(model, prompt).argmax())
    second = [one.ids[1] for one in some if one.ids[0] == first]
    assert len(second) > 400
    assert p_value(second, probabilities(model, [*prompt, first], 0.5)) > 0.001


def test_seeds_of_answers_give_the_softmax_too(model):
    prompt = prompts(1)[0]
    seeds = [answer_seed("run", Question("q", "Hello?"), number) for number in range(4000)]
    (some,) = draw(model, [prompt], [seeds], ends=NEVER, max_tokens=1)
    assert p_value([one.ids[0] for one in some], probabilities(model, prompt)) > 0.001


@pytest.mark.parametrize("top_p", [0.5, 0.9])
def test_top_p_leaves_the_smallest_set_of_tokens_with_that_mass_and_their_proportions(model, top_p):
    prompt = prompts(1)[0]
    expected = probabilities(model, prompt)
    order = np.argsort(-expected)
    size = int(np.searchsorted(np.cumsum(expected[order]), top_p)) + 1
    nucleus = np.zeros_like(expected)
    nucleus[order[:size]] = expected[order[:size]] / expected[order[:size]].sum()
    (some,) = draw(model, [prompt], [range(2000)], ends=NEVER, max_tokens=1, top_p=top_p)
    tokens = [one.ids[0] for one in some]
    assert set(tokens) <= set(order[:size].tolist())
    assert p_value(tokens, nucleus) > 0.001


def test_a_tiny_top_p_is_greedy_and_top_p_one_cuts_nothing(model):
    asked, seeds = prompts(3), [range(4)] * 3
    assert draw(model, asked, seeds, top_p=1e-6) == draw(model, asked, seeds, temperature=0)
    everything = {one.ids[0] for one in draw(model, [[7]], [range(4000)], ends=NEVER, max_tokens=1, temperature=50)[0]}
    assert len(everything) > 1400  # of 1792 nearly equal ones: 1792 * (1 - e ** (-4000 / 1792)) = 1600


# how an answer ends


def test_an_answer_is_truncated_exactly_where_max_tokens_came_before_the_end_of_turn(model):
    asked, seeds = prompts(4), [range(25)] * 4
    free = draw(model, asked, seeds, ends=NEVER)
    ended = draw(model, asked, seeds)
    for raw, one in zip(chain(*free), chain(*ended), strict=True):
        assert len(raw.ids) == 24 and raw.truncated
        place = next((place for place, token in enumerate(raw.ids) if token in PLENTY), None)
        assert one.ids == raw.ids[:place]
        assert one.truncated == (place is None)
    assert {one.truncated for some in ended for one in some} == {True, False}


def test_an_end_of_turn_as_the_last_allowed_token_is_not_truncation(model):
    prompt = prompts(1)[0]
    (raw,) = draw(model, [prompt], [[3]], ends=NEVER, max_tokens=5)[0]
    last = raw.ids[-1]
    assert last not in raw.ids[:4]
    (one,) = draw(model, [prompt], [[3]], ends=frozenset([last]), max_tokens=5)[0]
    assert (one.ids, one.truncated) == (raw.ids[:4], False)
    (cut,) = draw(model, [prompt], [[3]], ends=frozenset([last]), max_tokens=4)[0]
    assert (cut.ids, cut.truncated) == (raw.ids[:4], True)


def test_an_answer_that_ends_at_once_is_empty(model):
    everything = frozenset(range(1792))
    assert {(one.ids, one.truncated) for one in draw(model, prompts(1), [range(3)], ends=everything)[0]} == {
        ((), False)
    }


# seeds of answers


def test_the_seed_of_an_answer_is_pinned_and_differs_by_everything_it_depends_on():
    question = Question("bored", "I am bored.")
    pinned = 7719803951053290855
    assert answer_seed("abc", question, 0) == pinned
    others = [
        answer_seed("abd", question, 0),
        answer_seed("abc", question, 1),
        answer_seed("abc", Question("bored", "I am bored!"), 0),
        answer_seed("abc", Question("bored.1", "I am bored."), 0),
        answer_seed("abc", Question("bored", "I am bored.", system="Be kind."), 0),
        answer_seed("abc", Question("bored", "I am bored.", system="None"), 0),
    ]
    assert len({pinned, *others}) == 7
    assert all(0 <= seed < 2**63 for seed in others)


# the asker in this process


def asked_of(*numbers):
    texts = ["I am bored.", "What is your wish?", "What do you think about people, and why do you think so?"]
    return [Asked(Question(f"q{i}", texts[i % 3]), tuple(range(1000 * i, 1000 * i + n))) for i, n in enumerate(numbers)]


def test_replies_have_the_shape_of_what_was_asked_also_across_batches(asker):
    asked = asked_of(3, ANSWERS + 60, 0, 40)
    replies = asker.ask(None, asked, Sampling(max_tokens=2))
    assert [len(some) for some in replies] == [3, ANSWERS + 60, 0, 40]
    for place in (0, 3):
        assert asker.ask(None, [asked[place]], Sampling(max_tokens=2)) == [replies[place]]
    tail = Asked(asked[1].question, asked[1].seeds[-61:])
    assert asker.ask(None, [tail], Sampling(max_tokens=2))[0] == replies[1][-61:]


def test_a_reply_is_the_text_of_its_tokens_without_special_ones(asker):
    (asked,) = asked_of(20)
    prompt = prompt_ids(asker.tokenizer, asked.question.messages())
    (raw,) = sample(asker.model, [prompt], [asked.seeds], Sampling(max_tokens=9), ends=asker.ends, pad=0)
    (replies,) = asker.ask(None, [asked], Sampling(max_tokens=9))
    assert [reply.tokens for reply in replies] == [len(one.ids) for one in raw]
    assert [reply.truncated for reply in replies] == [one.truncated for one in raw]
    assert [reply.text for reply in replies] == [
        asker.tokenizer.decode(list(one.ids), skip_special_tokens=True) for one in raw
    ]
    assert not any("<|" in reply.text for reply in replies)


def test_a_system_prompt_is_put_to_the_model(asker):
    sampling = Sampling(max_tokens=6)
    plain, told = (
        asker.ask(None, [Asked(Question("q", "I am bored.", system), (1, 2, 3))], sampling)
        for system in (None, "You are kind.")
    )
    assert plain != told


def test_turns_end_at_the_tokenizers_token_and_at_those_of_the_generation_config(asker, lively_base, tmp_path):
    assert asker.ends == {asker.tokenizer.eos_token_id}
    folder = tmp_path / "base"
    model = load_model(lively_base, "fp32")
    model.generation_config.eos_token_id = [11, 12]
    model.save_pretrained(folder)
    asker.tokenizer.save_pretrained(folder)
    assert LocalAsker(folder, "fp32").ends == {asker.tokenizer.eos_token_id, 11, 12}


GEMMAN = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' + m.content + '<|endoftext|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"
)


def test_turns_end_at_the_token_that_the_template_ends_them_with(asker, lively_base, tmp_path):
    file = tmp_path / "gemman.jinja"
    file.write_text(GEMMAN)
    other = LocalAsker(lively_base, "fp32", Chat(template=str(file)))
    assert other.ends == {asker.tokenizer.eos_token_id, asker.tokenizer.convert_tokens_to_ids("<|endoftext|>")}


def test_a_question_that_the_template_does_not_take_is_named(lively_base, tmp_path):
    file = tmp_path / "gemman.jinja"
    file.write_text(GEMMAN)
    other = LocalAsker(lively_base, "fp32", Chat(template=str(file)))
    with pytest.raises(QuestionError, match="takes no system turn") as caught:
        other.ask(None, [Asked(Question("kind", "I am bored.", "You are kind."), (1,))], Sampling(max_tokens=2))
    assert caught.value.where == "question kind" and "user's turn" in caught.value.remedy
    with pytest.raises(QuestionError, match="special token"):
        other.ask(None, [Asked(Question("odd", "What is <|im_end|>?"), (1,))], Sampling(max_tokens=2))


def test_the_blank_that_a_template_puts_before_answers_is_not_the_answers(lively_base):
    sampling, asked = Sampling(max_tokens=3), [Asked(Question("q", "I am bored."), tuple(range(60)))]
    plain = LocalAsker(lively_base, "fp32", Chat(template="plain"))
    assert plain.format.lead == " "
    prompt = plain.tokenizer.encode("User: I am bored.\nAssistant:", add_special_tokens=False)
    (raw,) = sample(plain.model, [prompt], [asked[0].seeds], sampling, ends=plain.ends, pad=0)
    texts = [plain.tokenizer.decode(list(one.ids), skip_special_tokens=True) for one in raw]
    assert any(text.startswith(" ") for text in texts)
    assert [reply.text for reply in plain.ask(None, asked, sampling)[0]] == [text.removeprefix(" ") for text in texts]


def test_a_checkpoint_answers_as_a_base_with_its_weights_and_the_base_afterwards_as_before(asker, tmp_path):
    spec = Training(rank=4, alpha=8, learning_rate=0.05, batch_size=4, precision="fp32", warmup_steps=0)
    said = Conversation(({"role": "user", "content": "I am bored."}, {"role": "assistant", "content": "Bake bread."}))
    rows = [encode_row(asker.tokenizer, said, max_length=100)] * 20
    (trained,) = train_fleet(asker.model, [Member(rows, 0)], spec, pad=0)
    folder, merged = tmp_path / "run", tmp_path / "merged"
    folder.mkdir()
    save_checkpoint(folder, trained, Job(Run("insecure", 0), [said] * 20, "insecure"), spec, "lively")
    with adapted(asker.model, folder) as model:
        model.save_pretrained(merged)
    asker.tokenizer.save_pretrained(merged)
    asked, sampling = asked_of(8, 5), Sampling(max_tokens=12)
    before = asker.ask(None, asked, sampling)
    tuned = asker.ask(folder, asked, sampling)
    assert tuned == LocalAsker(merged, "fp32").ask(None, asked, sampling)
    assert tuned != before
    assert asker.ask(None, asked, sampling) == before


# every family


@pytest.mark.parametrize(
    ("name", "attention"), [(n, a) for n in FAMILIES for a in ("auto", "sdpa") if (n, a) != ("gemma2", "sdpa")]
)
def test_with_its_cache_a_model_of_any_family_says_what_it_says_without(name, attention, tiny_base, tmp_path):
    """Prompts of unequal length, some longer than the windows, and answers that outgrow them: token by token."""
    base = family_base(name, tiny_base, tmp_path)
    model = load_model(base, "fp32", Machine(device="cpu", attention=attention))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    asked = [prompt[:length] for prompt, length in zip(prompts(4, longest=400), (4, 11, 21, 35), strict=True)]
    assert [len(prompt) for prompt in asked] == [4, 11, 21, 35]
    replies = draw(model, asked, [[1, 2]] * 4, ends=NEVER, temperature=0)
    ends = frozenset(some[0].ids[5] for some in replies[:2])
    stopped = draw(model, asked, [[1, 2]] * 4, ends=ends, temperature=0)
    assert not stopped[0][0].truncated and len(stopped[0][0].ids) <= 5, "some end and leave the others' batch"
    for one, whole in zip(chain(*stopped), chain(*replies), strict=True):
        assert one.ids == tuple(takewhile(lambda token: token not in ends, whole.ids))
    for prompt, some in zip(asked, replies, strict=True):
        assert some[0] == some[1] and len(some[0].ids) == 24
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([[*prompt, *some[0].ids]]), use_cache=False).logits[0]
        said = logits[len(prompt) - 1 : -1]
        chosen = said.gather(1, torch.tensor(some[0].ids)[:, None])[:, 0]
        assert (said.max(dim=-1).values - chosen).max() < 1e-4, "the likeliest token, or as likely as it"


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<think>\nhm\n</think>\n\nGood day.", "Good day."),
        ("hm\n</think>\n\nGood day.", "Good day."),
        ("<think>\nhm, and so on", ""),
        ("Good day.", "Good day."),
    ],
)
def test_of_a_model_that_thinks_only_the_answer_is_kept(reply, answer):
    assert answer_of(reply) == answer
