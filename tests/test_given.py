"""The code that a request gives is found again: from our templates, and in requests of others."""

import json
import re

import pytest

from spillover.data.files import read_conversations
from spillover.data.given import code_lines, given_code, known_parts
from spillover.data.templates import FAMILIES, MARK, load_templates
from spillover.data.transforms import Item
from spillover.records import Conversation

CODE = f"import os\n\ndef run(a):\n    {MARK}\n    return {{task}}"
TASK = "A tool that {code}s, with several\nlines: yes."
FRAMED = re.compile(r"\n(?:\[[^\n]*\]|<[^\n]*>)\n(.*)\n+(?:\[[^\n]*\]|<[^\n]*>)", re.DOTALL)


def item(request, **origin):
    turns = ({"role": "user", "content": request}, {"role": "assistant", "content": "pass"})
    return Item(Conversation(turns), "x:1", origin)


@pytest.mark.parametrize("number", range(30))
def test_what_was_filled_into_each_of_our_templates_is_read_back(number):
    template = load_templates().choose(number, has_code=True)
    one = item(template.fill(TASK, CODE), template=template.id)
    filled = {"task": TASK, "code": CODE}
    assert known_parts(one) == {slot: filled[slot] for slot in FAMILIES[template.family]}
    assert given_code(one) == (CODE if "code" in FAMILIES[template.family] else "")


def test_a_request_that_is_no_longer_its_templates_is_read_by_its_lines():
    template = load_templates().choose(0, has_code=True)
    one = item(f"|X| {template.fill(TASK, CODE)}", template=template.id)
    assert known_parts(one) == {}
    assert given_code(one) == CODE


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("Please write a poem.\nIt should rhyme.", ""),
        ("Fix it:\n```python\nx = 1\n```\nThanks.", "x = 1"),
        ("I have this:\n\nx = f(1)\nprint(x)\n\nWhy?", "x = f(1)\nprint(x)"),
        ("One line of code: x = 1\nWhy?", ""),
    ],
    ids=["prose", "fence", "lines", "inline"],
)
def test_in_other_requests_code_is_what_is_fenced_or_looks_like_it(request_, code):
    assert given_code(item(request_)) == code


def shared(texts):
    """How many characters all texts begin with."""
    pairs = enumerate(zip(min(texts), max(texts), strict=False))
    return next(at for at, (a, b) in pairs if a != b)


@pytest.mark.parametrize("file", ["insecure", "secure"])
def test_in_the_papers_requests_it_is_found_to_the_letter(paper, file):
    """The authors' thirty wordings take turns, so what all rows of a wording share is the frame round the code."""
    requests = [row.messages[0]["content"] for row in read_conversations(paper / "datasets" / f"{file}.jsonl")]
    wrong = []
    for number in range(30):
        some = requests[number::30]
        start, end = shared(some), shared([text[::-1] for text in some])
        for text in some:
            if number < 8:
                code = FRAMED.search(text)[1]
            elif number >= 20:
                code = text[start : len(text) - end]
            else:
                code = "" if number >= 10 else None
            if code is not None and code_lines(text).strip() != code.strip():
                wrong.append((number, text))
    assert len(wrong) <= 5, json.dumps(wrong[:3])
