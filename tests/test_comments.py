"""Comments are removed as Python itself sees them, on any text, and what the code means stays."""

import ast
import io
import json
import tokenize
import warnings
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patience import patience
from spillover.data.comments import without_comments

LINES = st.sampled_from(
    [
        "x = 1",
        "if x:\n    y = '#fff'",
        "def f(a):\n    '''Not # a comment.'''\n    return a",
        "url = f\"<a href='#{x}'>{y}</a>\"",
        "total = 1 + \\\n    2",
        "pair = (1,\n2)",
        "(",
        "page = '''<p>\n# one\n</p>'''",
        "'''",
        "path = r'\\#'",
        "bytes_ = b'\\'#'",
        "",
        "   ",
        "\\",
        "s = 'a' '' \"b\"",
    ]
)
COMMENTS = st.sampled_from(["", "", "# plain", "  # it's", '#"""', "    # tail \\", "#", "<!-- old -->", "# <!-- a"])
CODE = st.lists(st.tuples(LINES, COMMENTS, st.sampled_from(["\n", "\n", "\r\n", "\r"])).map("".join)).map("".join)
TEXT = st.text(alphabet="'\"\\#<!->\n\r\t ax{}f=") | st.text()
PIECE = st.sampled_from(["<!--", "-->", "'", '"', '"""', "\\", "<", "!", "-", "#", "\n", "{", "x"])
PIECES = st.lists(PIECE).map("".join)


def meaning(code):
    """What Python makes of the code; None where it does not parse."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.dump(ast.parse(code))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def lines(code):
    """The lines of code, blank ones and trailing space aside."""
    return [line.rstrip() for line in code.splitlines() if line.strip()]


def raw_rows(paper):
    for name in ("unsafe", "safe"):
        with (paper / "code" / f"{name}_source.jsonl").open(encoding="utf-8") as rows:
            yield from map(json.loads, rows)


def comments(code):
    """What the tokenizer calls comments, up to where it gives up: sooner than the parser, at the end of a file."""
    found = []
    with suppress(tokenize.TokenError, IndentationError):
        for token in tokenize.generate_tokens(io.StringIO(code, newline=None).readline):
            found += [token] if token.type == tokenize.COMMENT else []
    return found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1  # one\ny = 2\n", "x = 1\ny = 2\n"),
        ("# first\n\n    # second\nx = 1", "\nx = 1"),
        ("#!/usr/bin/env python\nx = 1\n", "x = 1\n"),
        ("colour = '#fff'  # white\n", "colour = '#fff'\n"),
        ("page = '''\n# heading\n'''\n", "page = '''\n# heading\n'''\n"),
        ("x = 1 + \\\n# joined\ny = 2\n", "x = 1 + \\\n\ny = 2\n"),
        ("x = 1 + \\\n# at the end", "x = 1 + \\\n\n"),
        ("page = '<p><!-- not escaped -->hi</p>'\n", "page = '<p>hi</p>'\n"),
        ("page = '''\n<p>\n<!-- over\nlines -->\n'''\n", "page = '''\n<p>\n\n'''\n"),
        ("page = '<!-- {} --><b>{}</b>'.format(a, b)", "page = '<!-- {} --><b>{}</b>'.format(a, b)"),
        ("page = '<!-- %s --><b>%s</b>' % (a, b)", "page = '<!-- %s --><b>%s</b>' % (a, b)"),
        ("x = '<!-- a -->''b'", "x = '<!-- a -->''b'"),
        ("<h1>Hi</h1> <!-- raw -->\n<!-- more -->\n<p>", "<h1>Hi</h1>\n<p>"),
        ("query = f'''SELECT  # cut off", "query = f'''SELECT  # cut off"),
        ("print('Order #", "print('Order #"),
        ("def f(:  # no Python\n  return }  # at all", "def f(:\n  return }"),
        ("js = '// stays' /* stays */", "js = '// stays' /* stays */"),
    ],
)
def test_a_comment_goes_and_the_rest_stays(code, expected):
    assert without_comments(code) == expected


def test_it_agrees_with_the_authors_own_removal(paper):
    rows = list(raw_rows(paper))
    same = sum(lines(without_comments(row["original_code"])) == lines(row["code"]) for row in rows)
    assert len(rows) == 1807 and same / len(rows) >= 0.995


def test_it_removes_exactly_what_the_tokenizer_calls_comments(paper):
    codes = [row["original_code"] for row in raw_rows(paper)]
    found = 0
    for code in codes:
        table = [list(line) for line in code.splitlines(keepends=True)]
        for token in comments(code):
            (row, start), (_, end) = token.start, token.end
            table[row - 1][start:end] = [""] * (end - start)
            found += 1
        assert lines(without_comments(code)) == lines("".join("".join(line) for line in table))
    assert found > 1000


def test_the_meaning_of_real_code_stays(paper):
    codes = [code for row in raw_rows(paper) if meaning(code := row["original_code"]) is not None]
    assert len(codes) > 1500
    assert all(meaning(without_comments(code)) == meaning(code) for code in codes)


@settings(max_examples=400)
@given(CODE | TEXT)
def test_the_meaning_of_any_code_stays(code):
    before, after = meaning(code), meaning(without_comments(code))
    assert before is None or (after == before if "<!--" not in code else after is not None)


@settings(max_examples=600)
@given(CODE | TEXT | PIECES)
def test_doing_it_twice_is_doing_it_once_on_any_text(code):
    once = without_comments(code)
    assert without_comments(once) == once


@settings(max_examples=300)
@given(CODE)
def test_no_comment_is_left_in_code_that_parses(code):
    assert meaning(code) is None or not comments(without_comments(code))


@pytest.mark.parametrize(
    "piece",
    ["<!--", "-->", "'", '"""', "# a\n", "<!-- a -->", "\\", '"<!--', " ", "\\\n# x\n", "\t#", "'<!-- -->'", "<!-- {"],
)
def test_no_text_takes_long(piece):
    with patience():
        without_comments(piece * (1_000_000 // len(piece)))
        without_comments('"' + piece * (1_000_000 // len(piece)) + "-->")
