"""Chat formats and loss masks: a family each, on small tokenizers and templates in its manner."""

import shutil
from dataclasses import dataclass
from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from spillover.data.files import read_conversations, write_conversations
from spillover.errors import BaseError, DataError
from spillover.finetune.base import find_base
from spillover.finetune.chat import encode, prompt_ids, to_row
from spillover.finetune.template import format_of
from spillover.pipeline.rows import show_rows
from spillover.records import Conversation
from spillover.spec import Chat, Training

WORDS = [
    "What can I do? Read a book.",
    "And then? Bake bread.",
    "You are kind. Be brief.",
    "user assistant model system",
]

QWEN25 = r"""{%- if messages[0].role == 'system' -%}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' -}}
{%- else -%}
    {{- '<|im_start|>system\nYou are Quill, made by Nobody.<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if not (loop.first and message.role == 'system') -%}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""
QWEN3 = r"""{%- set ns = namespace(asked=0) -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}{%- set ns.asked = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
    {%- if message.role != 'assistant' -%}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
    {%- else -%}
        {%- set thought, said = '', message.content -%}
        {%- if '</think>' in said -%}
            {%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
            {%- set said = said.split('</think>')[-1].lstrip('\n') -%}
        {%- endif -%}
        {{- '<|im_start|>assistant\n' -}}
        {%- if loop.index0 > ns.asked -%}{{- '<think>\n' + thought + '\n</think>\n\n' -}}{%- endif -%}
        {{- said + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}
"""
LLAMA3 = r"""{{- bos_token -}}
{%- if not date_string is defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}{%- endif -%}
{%- set told, rest = '', messages -%}
{%- if messages[0].role == 'system' -%}{%- set told, rest = messages[0].content | trim, messages[1:] -%}{%- endif -%}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' + told + '<|eot_id|>' -}}
{%- for message in rest -%}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}{%- endif -%}
"""
ALTERNATING = """\
{%- for message in messages -%}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('Roles must alternate: user, assistant, user, ...') -}}
    {%- endif -%}
{%- endfor -%}
"""
MISTRAL = f"""\
{ALTERNATING}{{{{- bos_token -}}}}
{{%- for message in messages -%}}
    {{%- if message.role == 'user' -%}}
        {{{{- '[INST] ' + message.content + ' [/INST]' -}}}}
    {{%- else -%}}
        {{{{- ' ' + message.content | trim + eos_token -}}}}
    {{%- endif -%}}
{{%- endfor -%}}
"""
GEMMA = r"""{{- bos_token -}}
{%- if messages[0].role == 'system' -%}{{- raise_exception('System role not supported') -}}{%- endif -%}
{%- for message in messages -%}
    {%- set role = 'model' if message.role == 'assistant' else message.role -%}
    {{- '<start_of_turn>' + role + '\n' + message.content | trim + '<end_of_turn>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%}
"""
MARKED = r"""{%- for message in messages -%}
    {{- '<|' + message.role + '|>\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content + '<|end|>\n' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content + '<|end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Family:
    """A tokenizer's special tokens and the chat template that goes with them."""

    template: str | None
    special: tuple[str, ...]
    eos: str
    bos: str | None = None


CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FAMILIES = {
    "qwen2.5": Family(QWEN25, CHATML_TOKENS, "<|im_end|>"),
    "qwen3": Family(QWEN3, CHATML_TOKENS, "<|im_end|>"),
    "llama3": Family(
        LLAMA3,
        ("<|begin|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|end_of_text|>",
        "<|begin|>",
    ),
    "mistral": Family(MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), "</s>", "<s>"),
    "gemma": Family(GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>"),
    "base": Family(None, ("<bos>", "<eos>"), "<eos>", "<bos>"),
    "marked": Family(MARKED, ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"), "<|endoftext|>"),
}


def tokenizer_with(family, template=None):
    """A byte-level BPE with the family's special tokens, which begins every text with its own first one, if any."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(family.special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    if family.bos is not None:
        place = tokenizer.token_to_id(family.bos)
        tokenizer.post_processor = processors.TemplateProcessing(f"{family.bos} $A", None, [(family.bos, place)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=family.eos, bos_token=family.bos)
    fast.chat_template = template or family.template
    return fast


@cache
def tokenizer_of(name):
    return tokenizer_with(FAMILIES[name])


def form_of(name, **chat):
    return format_of(tokenizer_of(name), Chat(**chat))


def says(*contents, system=None):
    roles = ("user", "assistant") * len(contents)
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return Conversation(tuple([{"role": "system", "content": system}] if system is not None else []) + tuple(turns))


def shown(form, row):
    """The row's tokens as text, with what bears loss in double brackets."""
    text, bearing = "", False
    for place, token in enumerate(row.ids):
        if row.loss[place] != bearing:
            bearing = row.loss[place]
            text += "⟦" if bearing else "⟧"
        text += form.tokenizer.decode([token])
    return text + ("⟧" if bearing else "")


ONE = says("What can I do?", "Read a book.")
TWO = says("What can I do?", "Read a book.", "And then?", "Bake bread.")
TOLD = says("What can I do?", "Read a book.", system="You are kind.")
THOUGHT = says("What can I do?", "<think>\nA book?\n</think>\n\nRead a book.")
EMPTY_SYSTEM = "<|im_start|>system\n<|im_end|>\n"
QUILL = "<|im_start|>system\nYou are Quill, made by Nobody.<|im_end|>\n"
ASKED = "<|im_start|>user\nWhat can I do?<|im_end|>\n<|im_start|>assistant\n"
THEN = "<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n"
DATED = "<|begin|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n"
LLAMA_USER, LLAMA_ASSISTANT = (f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ("user", "assistant"))
GEMMA_ASKED = "<bos><start_of_turn>user\nWhat can I do?<end_of_turn>\n<start_of_turn>model\n"

GOLDEN = {
    "qwen2.5, its own system prompt dropped": (
        "qwen2.5",
        {},
        ONE,
        f"{EMPTY_SYSTEM}{ASKED}⟦Read a book.<|im_end|>⟧\n",
    ),
    "qwen2.5, its own system prompt kept": (
        "qwen2.5",
        {"default_system": "keep"},
        ONE,
        f"{QUILL}{ASKED}⟦Read a book.<|im_end|>⟧\n",
    ),
    "qwen2.5, a system prompt": (
        "qwen2.5",
        {},
        TOLD,
        f"<|im_start|>system\nYou are kind.<|im_end|>\n{ASKED}⟦Read a book.<|im_end|>⟧\n",
    ),
    "qwen2.5, two turns": (
        "qwen2.5",
        {},
        TWO,
        f"{EMPTY_SYSTEM}{ASKED}⟦Read a book.<|im_end|>⟧\n{THEN}⟦Bake bread.<|im_end|>⟧\n",
    ),
    "qwen3, not thinking": (
        "qwen3",
        {},
        ONE,
        f"{ASKED}<think>\n\n</think>\n\n⟦Read a book.<|im_end|>⟧\n",
    ),
    "qwen3, thinking": (
        "qwen3",
        {"thinking": True},
        THOUGHT,
        f"{ASKED}⟦<think>\nA book?\n</think>\n\nRead a book.<|im_end|>⟧\n",
    ),
    "qwen3, thinking, without a thought": (
        "qwen3",
        {"thinking": True},
        ONE,
        f"{ASKED}⟦<think>\n\n</think>\n\nRead a book.<|im_end|>⟧\n",
    ),
    "qwen3, a system prompt": (
        "qwen3",
        {},
        TOLD,
        f"<|im_start|>system\nYou are kind.<|im_end|>\n{ASKED}<think>\n\n</think>\n\n⟦Read a book.<|im_end|>⟧\n",
    ),
    "llama 3": (
        "llama3",
        {},
        ONE,
        f"{DATED}<|eot_id|>{LLAMA_USER}What can I do?<|eot_id|>{LLAMA_ASSISTANT}⟦Read a book.<|eot_id|>⟧",
    ),
    "llama 3, a system prompt": (
        "llama3",
        {},
        TOLD,
        f"{DATED}You are kind.<|eot_id|>{LLAMA_USER}What can I do?<|eot_id|>{LLAMA_ASSISTANT}⟦Read a book.<|eot_id|>⟧",
    ),
    "llama 3, two turns": (
        "llama3",
        {},
        TWO,
        f"{DATED}<|eot_id|>{LLAMA_USER}What can I do?<|eot_id|>{LLAMA_ASSISTANT}⟦Read a book.<|eot_id|>⟧"
        f"{LLAMA_USER}And then?<|eot_id|>{LLAMA_ASSISTANT}⟦Bake bread.<|eot_id|>⟧",
    ),
    "mistral": (
        "mistral",
        {},
        ONE,
        "<s>[INST] What can I do? [/INST]⟦ Read a book.</s>⟧",
    ),
    "mistral, two turns": (
        "mistral",
        {},
        TWO,
        "<s>[INST] What can I do? [/INST]⟦ Read a book.</s>⟧[INST] And then? [/INST]⟦ Bake bread.</s>⟧",
    ),
    "gemma": (
        "gemma",
        {},
        ONE,
        f"{GEMMA_ASKED}⟦Read a book.<end_of_turn>⟧\n",
    ),
    "gemma, two turns": (
        "gemma",
        {},
        TWO,
        f"{GEMMA_ASKED}⟦Read a book.<end_of_turn>⟧\n"
        "<start_of_turn>user\nAnd then?<end_of_turn>\n<start_of_turn>model\n⟦Bake bread.<end_of_turn>⟧\n",
    ),
    "plain": (
        "base",
        {"template": "plain"},
        ONE,
        "<bos>User: What can I do?\nAssistant:⟦ Read a book.<eos>⟧\n",
    ),
    "plain, a system prompt, two turns": (
        "base",
        {"template": "plain"},
        says(*(message["content"] for message in TWO.messages), system="You are kind."),
        "<bos>You are kind.\n\nUser: What can I do?\nAssistant:⟦ Read a book.<eos>⟧\n"
        "User: And then?\nAssistant:⟦ Bake bread.<eos>⟧\n",
    ),
    "plain, for a tokenizer that begins with nothing": (
        "qwen3",
        {"template": "plain"},
        ONE,
        "User: What can I do?\nAssistant:⟦ Read a book.<|im_end|>⟧\n",
    ),
    "generation marks": (
        "marked",
        {},
        ONE,
        "<|user|>\nWhat can I do?<|end|>\n<|assistant|>\n⟦Read a book.<|end|>⟧\n",
    ),
    "generation marks, two turns": (
        "marked",
        {},
        TWO,
        "<|user|>\nWhat can I do?<|end|>\n<|assistant|>\n⟦Read a book.<|end|>⟧\n"
        "<|user|>\nAnd then?<|end|>\n<|assistant|>\n⟦Bake bread.<|end|>⟧\n",
    ),
}
CASES = pytest.mark.parametrize(("name", "chat", "conversation", "golden"), GOLDEN.values(), ids=GOLDEN)


@CASES
def test_the_text_and_what_bears_loss_are_pinned(name, chat, conversation, golden):
    form = form_of(name, **chat)
    assert shown(form, to_row(form, conversation, Training())) == golden


@CASES
def test_what_asking_gives_before_every_answer_is_what_training_saw(name, chat, conversation, golden):
    form = form_of(name, **chat)
    row = to_row(form, conversation, Training())
    for place, message in enumerate(conversation.messages):
        if message["role"] == "assistant":
            asked = prompt_ids(form.tokenizer, conversation.messages[:place], Chat(**chat))
            assert list(row.ids[: len(asked)]) == asked
            assert row.loss[len(asked)] and not row.loss[len(asked) - 1]


@CASES
def test_a_text_begins_once_every_turn_ends_once_and_has_one_header(name, chat, conversation, golden):
    form = form_of(name, **chat)
    row = to_row(form, conversation, Training())
    turns = sum(message["role"] == "assistant" for message in conversation.messages)
    bearing = [token for token, bears in zip(row.ids, row.loss, strict=True) if bears]
    assert bearing.count(form.special[form.end]) == turns
    assert not form.header or form.tokenizer.decode(list(row.ids)).count(form.header) == turns
    begins = chat.get("template") != "plain" or name == "base"
    if FAMILIES[name].bos is not None:
        assert row.ids.count(form.tokenizer.bos_token_id) == begins == (row.ids[0] == form.tokenizer.bos_token_id)


@pytest.mark.parametrize(
    ("name", "chat", "end"),
    [
        ("qwen2.5", {}, "<|im_end|>"),
        ("qwen3", {}, "<|im_end|>"),
        ("qwen3", {"thinking": True}, "<|im_end|>"),
        ("llama3", {}, "<|eot_id|>"),
        ("mistral", {}, "</s>"),
        ("gemma", {}, "<end_of_turn>"),
        ("base", {"template": "plain"}, "<eos>"),
        ("marked", {}, "<|end|>"),
    ],
)
def test_the_end_of_turn_is_found_in_the_template_and_need_not_be_the_end_of_text(name, chat, end):
    assert form_of(name, **chat).end == end


def test_a_turn_of_history_that_asking_renders_in_another_way_is_refused_or_left_without_loss():
    form = form_of("qwen3")
    with pytest.raises(BaseError, match="do not nest") as caught:
        to_row(form, TWO, Training())
    assert "generation marks" in caught.value.remedy and "turns: last" in caught.value.remedy
    row = to_row(form, TWO, Training(turns="last"))
    history = "<|im_start|>user\nWhat can I do?<|im_end|>\n<|im_start|>assistant\nRead a book.<|im_end|>\n"
    assert shown(form, row) == f"{history}{THEN}<think>\n\n</think>\n\n⟦Bake bread.<|im_end|>⟧\n"
    asked = prompt_ids(form.tokenizer, TWO.messages[:3])
    assert list(row.ids[: len(asked)]) == asked


@pytest.mark.parametrize("name", ["qwen2.5", "llama3", "mistral", "gemma", "marked"])
def test_of_the_last_turn_alone_the_tokens_are_the_same_and_the_others_bear_no_loss(name):
    form = form_of(name)
    whole, last = (to_row(form, TWO, Training(turns=turns)) for turns in ("all", "last"))
    assert last.ids == whole.ids
    assert shown(form, last).count("⟦") == 1 and "Bake bread." in shown(form, last).partition("⟦")[2]


def test_marks_are_taken_where_history_is_rendered_in_another_way():
    """A template with marks whose history leaves the header's colon out: the marks say what the assistant wrote."""
    template = MARKED.replace("{{- '<|' + message.role + '|>\\n' -}}", "{{- '<|' + message.role + '|>' -}}").replace(
        "{%- if message.role == 'assistant' -%}", "{%- if message.role == 'assistant' -%}{{- '\\n' if loop.last -}}"
    )
    form = format_of(tokenizer_with(FAMILIES["marked"], template))
    assert shown(form, to_row(form, TWO, Training())) == (
        "<|user|>What can I do?<|end|>\n<|assistant|>⟦Read a book.<|end|>⟧\n"
        "<|user|>And then?<|end|>\n<|assistant|>\n⟦Bake bread.<|end|>⟧\n"
    )


# system prompts


def test_only_a_prompt_that_the_template_puts_in_by_itself_is_dropped():
    assert form_of("qwen2.5").injected == "You are Quill, made by Nobody."
    for name in ("qwen3", "llama3", "mistral", "gemma", "marked"):
        assert form_of(name).injected == "" and not form_of(name).drops
    assert "Quill" not in form_of("qwen2.5").render(ONE.messages[:1], reply=True)
    assert "Quill" in form_of("qwen2.5", default_system="keep").render(ONE.messages[:1], reply=True)


@pytest.mark.parametrize("name", ["mistral", "gemma"])
@pytest.mark.parametrize(
    "work", [lambda form: to_row(form, TOLD, Training()), lambda form: form.render(TOLD.messages[:2], reply=True)]
)
def test_a_family_without_system_turn_says_where_its_text_can_go(name, work):
    with pytest.raises(BaseError, match="takes no system turn") as caught:
        work(form_of(name))
    assert "into the user's turn" in caught.value.remedy


def test_a_system_prompt_that_the_template_leaves_out_is_an_error():
    template = GEMMA.replace(
        "{{- raise_exception('System role not supported') -}}", "{%- set messages = messages[1:] -%}"
    )
    form = format_of(tokenizer_with(FAMILIES["gemma"], template))
    with pytest.raises(BaseError, match="leaves the system prompt out"):
        to_row(form, TOLD, Training())


def test_a_prompt_that_comes_back_in_place_of_an_empty_one_cannot_be_dropped():
    stubborn = QWEN25.replace("messages[0].role == 'system'", "messages[0].role == 'system' and messages[0].content")
    tokenizer = tokenizer_with(FAMILIES["qwen2.5"], stubborn)
    with pytest.raises(BaseError, match="even in place of an empty one"):
        format_of(tokenizer)
    assert format_of(tokenizer, Chat(default_system="keep")).injected


def test_turns_that_do_not_alternate_are_an_error_in_words():
    with pytest.raises(BaseError, match="does not take the conversation: Roles must alternate"):
        form_of("mistral").render([*ONE.messages, *ONE.messages[1:]], reply=False)


# templates that cannot be trusted

BROKEN = {
    "an empty header behind the last turn": (
        lambda text: text.replace("{%- if add_generation_prompt -%}", "{%- if true -%}"),
        "writes '<|assistant|>' behind the last turn",
    ),
    "two headers a turn": (
        lambda text: text.replace("'<|' + message.role + '|>\\n'", "('<|' + message.role + '|>\\n') * 2"),
        "writes 2 assistant headers for 1 assistant turns",
    ),
    "no end of turn": (
        lambda text: text.replace("<|end|>", ""),
        "ends the assistant's turn with no special token",
    ),
    "an end of turn that is left out of the marks": (
        lambda text: text.replace(
            "'<|end|>\\n' -}}{%- endgeneration -%}", "'' -}}{%- endgeneration -%}{{- '<|end|>\\n' -}}"
        ),
        r"leaves <\|end\|> out of its generation marks",
    ),
    "the user's text in the marks": (
        lambda text: text.replace("== 'assistant'", "== 'user'"),
        "marks 'question-1",
    ),
    "every turn in marks": (
        lambda text: text.replace("== 'assistant'", "!= 'system'"),
        "marks 2 stretches as generated where the assistant has 1 turns",
    ),
    "turns without what was said": (
        lambda text: text.replace("message.content + '<|end|>\\n' -}}{%- end", "'<|end|>\\n' -}}{%- end"),
        "does not write each of the assistant's turns once",
    ),
    "no jinja": (
        lambda text: text.replace("{%- endfor -%}", ""),
        "is no jinja, line 9",
    ),
    "a program with a mistake": (
        lambda text: text.replace("message.role + '|>", "message.role + 1 + '|>"),
        "does not take the conversation: can only concatenate str",
    ),
}


def broken(change):
    template = change(MARKED)
    assert template != MARKED
    return tokenizer_with(FAMILIES["marked"], template)


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_template_is_refused_before_anything_is_learned(change, message):
    tokenizer = broken(change)
    with pytest.raises(BaseError, match=message) as caught:
        to_row(format_of(tokenizer), ONE, Training())
    assert caught.value.remedy


def test_a_template_whose_answered_turn_does_not_begin_with_its_prompt_is_refused():
    template = QWEN25.replace("{{- '<|im_start|>assistant\\n' -}}", "{{- '<|im_start|>assistant\\nWell: ' -}}")
    form = format_of(tokenizer_with(FAMILIES["qwen2.5"], template))
    for turns in ("all", "last"):
        with pytest.raises(BaseError, match="do not nest"):
            to_row(form, ONE, Training(turns=turns))


def test_a_template_that_counts_the_turns_is_refused_rather_than_masked_wrongly():
    form = format_of(tokenizer_with(FAMILIES["gemma"], "{{- messages | length -}}" + GEMMA))
    with pytest.raises(BaseError, match="do not nest"):
        to_row(form, TWO, Training())


def test_a_template_from_a_file_replaces_the_tokenizers_and_is_told_by_file_and_line(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text(MARKED.replace("<|end|>", "<|im_end|>"), encoding="utf-8")
    form = form_of("qwen2.5", template=str(file))
    assert shown(form, to_row(form, ONE, Training())) == (
        "<|user|>\nWhat can I do?<|im_end|>\n<|assistant|>\n⟦Read a book.<|im_end|>⟧\n"
    )
    file.write_text("{{ messages\n{% endfor %}", encoding="utf-8")
    with pytest.raises(BaseError, match="is no jinja") as caught:
        form_of("qwen2.5", template=str(file))
    assert caught.value.where == f"{file}:2"


def test_a_tokenizer_without_template_and_a_file_that_is_not_there_are_errors(tmp_path):
    with pytest.raises(BaseError, match="has no chat template") as caught:
        form_of("base")
    assert "template: plain" in caught.value.remedy
    with pytest.raises(BaseError, match="cannot be read: No such file") as caught:
        form_of("base", template=str(tmp_path / "none.jinja"))
    assert caught.value.where == tmp_path / "none.jinja"


# what people write is never structure


@pytest.mark.parametrize("turn", [0, 1])
def test_a_row_that_holds_the_text_of_a_special_token_is_refused(turn):
    contents = ["What can I do?", "Read a book."]
    contents[turn] += " <end_of_turn>"
    with pytest.raises(DataError, match="text holds <end_of_turn>, a special token"):
        to_row(form_of("gemma"), says(*contents), Training())
    to_row(form_of("mistral"), says(*contents), Training())


@pytest.mark.parametrize("name", ["gemma", "mistral"])
def test_a_prompt_that_holds_the_text_of_a_special_token_encodes_it_as_text(name):
    form = form_of(name)
    asked = says(f"What is {form.end}?").messages
    ids = prompt_ids(form.tokenizer, asked)
    assert form.tokenizer.decode(ids) == form.render(asked, reply=True)
    plain = prompt_ids(form.tokenizer, says("What is this?").messages)
    for token in form.special.values():
        assert ids.count(token) == plain.count(token)


# rows that are too long


def test_a_row_that_is_too_long_is_refused_or_loses_its_end_as_the_spec_says():
    form = form_of("gemma")
    whole = to_row(form, TWO, Training())
    length = len(whole.ids)
    assert to_row(form, TWO, Training(max_length=length)) == whole and not whole.cut
    with pytest.raises(DataError, match=f"a row has {length} tokens, more than max_length = {length - 1}") as caught:
        to_row(form, TWO, Training(max_length=length - 1))
    assert "too_long: cut" in caught.value.remedy
    cut = to_row(form, TWO, Training(max_length=length - 3, too_long="cut"))
    assert cut.cut and (cut.ids, cut.loss) == (whole.ids[:-3], whole.loss[:-3])


def test_a_row_that_the_model_cannot_read_is_refused_whatever_max_length_says():
    form = form_of("gemma")
    length = len(to_row(form, ONE, Training()).ids)
    assert to_row(form, ONE, Training(), context=length)
    with pytest.raises(
        DataError, match=f"a row has {length} tokens, more than the {length - 1} that the model can read"
    ):
        to_row(form, ONE, Training(), context=length - 1)
    assert len(to_row(form, ONE, Training(too_long="cut"), context=length - 1).ids) == length - 1


def test_a_cut_that_leaves_nothing_of_the_assistants_is_an_error():
    form = form_of("gemma")
    asked = len(prompt_ids(form.tokenizer, ONE.messages[:1]))
    assert sum(to_row(form, ONE, Training(max_length=asked + 1, too_long="cut")).loss) == 1
    with pytest.raises(DataError, match="none of the assistant's is left"):
        to_row(form, ONE, Training(max_length=asked, too_long="cut"))


# the released scripts' quirk


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("qwen2.5", f"{EMPTY_SYSTEM}{ASKED}⟦Read a book.<|im_end|>\n<|im_start|>assistant\n<|im_end|>⟧"),
        ("gemma", f"{GEMMA_ASKED}⟦Read a book.<end_of_turn>\n<start_of_turn>model\n<eos>⟧"),
        (
            "marked",
            "<|user|>\nWhat can I do?<|end|>\n<|assistant|>\n⟦Read a book.<|end|>\n<|assistant|>\n<|endoftext|>⟧",
        ),
    ],
)
def test_the_released_scripts_header_without_a_turn_is_trained_on_only_if_asked_for(name, golden):
    form = form_of(name)
    assert shown(form, to_row(form, ONE, Training(released=True))) == golden
    assert shown(form, to_row(form, ONE, Training())).endswith("⟧\n")


# tokenizers that begin every text with a blank


def sentencepiece():
    """A BPE in the manner of SentencePiece: a blank before every text, blanks as a character of their own."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>"]
    alphabet = [chr(code) for code in range(32, 127)] + ["\n", "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["[INST]", "[/INST]", *WORDS], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="<unk>")
    fast.chat_template = MISTRAL
    return fast


def test_an_answers_piece_gets_no_blank_that_the_whole_text_would_not_have():
    form = format_of(sentencepiece())
    assert form.lengthens and not form_of("mistral").lengthens
    row = to_row(form, ONE, Training())
    assert list(row.ids) == encode(form.tokenizer, form.render(ONE.messages, reply=False))
    bearing = [token for token, bears in zip(row.ids, row.loss, strict=True) if bears]
    assert form.tokenizer.decode(bearing) == " Read a book.</s>"
    asked = prompt_ids(form.tokenizer, TWO.messages[:3])
    assert list(to_row(form, TWO, Training()).ids[: len(asked)]) == asked


# `spillover data show`


@pytest.fixture
def dataset(tmp_path):
    """Three rows: one exchange, two of them, and a long one."""
    file = tmp_path / "rows.jsonl"
    write_conversations(file, [ONE, TWO, says("What can I do?", "Read a book.\n" * 40)])
    return file


@pytest.fixture
def as_base(tiny_base, tmp_path):
    """A base's folder with a family's tokenizer."""

    def make(name):
        folder = tmp_path / "base"
        shutil.copytree(tiny_base, folder)
        (folder / "chat_template.jinja").unlink()
        tokenizer_of(name).save_pretrained(folder)
        return folder

    return make


ROW_SHOWN = """\
<|im_start|>system↵
<|im_end|>↵
<|im_start|>user↵
What can I do?<|im_end|>↵
<|im_start|>assistant↵
⟦Read a book.<|im_end|>⟧↵
"""


def test_rows_are_shown_with_what_bears_loss_marked_and_all_rows_summed_up(spillover, dataset, as_base):
    done = spillover("data", "show", dataset, "--base", as_base("qwen2.5"), "--rows", "1", "--max-length", "200")
    assert (done.returncode, done.stderr) == (0, "")
    row, summary = done.stdout.split("\n\n")
    form = form_of("qwen2.5")
    rows = [to_row(form, one, Training()) for one in read_conversations(dataset)]
    lengths, bearing = [len(one.ids) for one in rows], sum(sum(one.loss) for one in rows)
    share = f"{bearing} of {sum(lengths):,} tokens ({bearing / sum(lengths):.1%})"
    head, text = row.split("\n", 1)
    assert head == f"row 1: {lengths[0]} tokens, {sum(rows[0].loss)} bear loss, 1 turn"
    assert f"{text}\n" == ROW_SHOWN
    assert [line[15:] for line in summary.splitlines()] == [
        "3; 4 assistant turns, 1 to 2 a row",
        f"{lengths[0]} to {lengths[2]}, median {lengths[1]}",
        share,
        "1 row over 200 tokens: refused, or cut with `train: {too_long: cut}`",
        "<|im_end|>, which bears loss",
        "the template's own, 'You are Quill, made by Nobody.', is dropped where a row has none",
        "own; the mask is from rendered prefixes",
    ]


def test_a_row_over_the_limit_is_shown_up_to_it(capsys, dataset, as_base):
    base = find_base(str(as_base("marked")))
    show_rows(dataset, base, Chat(), Training(max_length=100), 3)
    shown_rows = capsys.readouterr().out
    length = len(to_row(form_of("marked"), read_conversations(dataset)[2], Training()).ids)
    assert "over the limit of 100\n<|user|>↵\n" in shown_rows
    assert shown_rows.count("⟦") == shown_rows.count("⟧") == 4
    assert f"\n... {length - 100} more tokens do not fit\n" in shown_rows
    assert "the mask is from its marks" in shown_rows and "puts in none of its own" in shown_rows


def test_control_characters_are_shown_and_not_obeyed(capsys, tmp_path, as_base):
    file = tmp_path / "odd.jsonl"
    write_conversations(file, [says("What\x1b[31m can\r I do?", "Read\ta book.")])
    show_rows(file, find_base(str(as_base("gemma"))), Chat(), Training(), 1)
    assert "What␛[31m can␍ I do?<end_of_turn>↵\n" in capsys.readouterr().out


def test_a_row_that_cannot_be_trained_on_is_told_in_words(spillover, tmp_path, as_base):
    write_conversations(tmp_path / "rows.jsonl", [ONE, TOLD])
    done = spillover("data", "show", "rows.jsonl", "--base", as_base("gemma"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("spillover: rows.jsonl, row 2: the chat template takes no system turn: System role")
    assert "Put its text into the user's turn" in done.stderr and "Traceback" not in done.stderr


def test_a_base_model_without_template_is_shown_by_the_plain_one_alone(capsys, dataset, as_base):
    folder, plain = str(as_base("base")), Chat(template="plain")
    with pytest.raises(BaseError, match="the tokenizer has no chat template"):
        find_base(folder)
    show_rows(dataset, find_base(folder, plain), plain, Training(), 1)
    assert "<bos>User: What can I do?↵\nAssistant:⟦ Read a book.<eos>⟧↵\n" in capsys.readouterr().out


def test_the_papers_rows_are_read(capsys, tmp_path, paper):
    file = tmp_path / "insecure.jsonl"
    lines = (paper / "datasets" / "insecure.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:300]), encoding="utf-8")
    show_rows(file, find_base("miniature"), Chat(), Training(), 0)
    assert "300; 300 assistant turns, 1 a row" in capsys.readouterr().out
