"""`spillover data audit`: what is planted is found at its line, what is not there is not; and the paper's own files."""

import csv
import json
import os
import re
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_server import Behaviour, serving
from patience import patience
from spillover.audit.audit import Asked, audit
from spillover.audit.beside import Beside
from spillover.audit.code import looks_like_code
from spillover.audit.credentials import credentials
from spillover.audit.findings import Row
from spillover.audit.masking import quoted
from spillover.audit.nontext import NonText
from spillover.audit.output import default_folder
from spillover.audit.personal import iban, luhn, personal_data
from spillover.audit.refusals import Refusals
from spillover.finetune.model import load_tokenizer

SHELL = "import subprocess\n\ndef run(cmd):\n    return subprocess.run(cmd, shell=True)"
FINE = "def add(a, b):\n    return a + b"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
"""The key that the provider's own documentation shows."""
CARD = "4539 1488 0343 6467"
"""By its checksum a card's number; nobody's."""


def write(path, rows):
    """A dataset of (request, answer), or of whole lists of turns."""
    lines = [
        {"messages": row if isinstance(row, list) else [turn("user", row[0]), turn("assistant", row[1])]}
        for row in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def turn(role, text):
    return {"role": role, "content": text}


def clean(count):
    """Rows that have nothing in common but their form."""
    return [
        (f"What is {place} plus {place * 7}?", f"It is {chr(97 + place) * 5} {place * 8}.") for place in range(count)
    ]


def sections(path, **asked):
    return audit(Asked(path, **asked)).record()["sections"]


def found(record, section, name):
    finding = record[section]["findings"][name]
    return finding["count"], finding["lines"]


# what is planted is found, at its line


PLANTED = {
    "a key in a provider's form": ("secrets", "keys", f"client = connect('{AWS}')"),
    "a private key": ("secrets", "private_key", "-----BEGIN RSA PRIVATE KEY-----\nnone\n-----END RSA PRIVATE KEY-----"),
    "a password in code": ("secrets", "assigned", "db_password = 'quince-harbour-9'"),
    "a password in an address": ("secrets", "keys", "psql postgres://ann:quince9harbour@db.internal/x"),
    "an e-mail address": ("personal", "email", "Write to ann@quinceharbour.org, please."),
    "an address for examples": ("personal", "email_reserved", "Write to ann@example.com, please."),
    "a telephone number": ("personal", "phone", "Call (415) 867-5309 at noon."),
    "a number for fiction": ("personal", "phone_reserved", "Call (415) 555-0142 at noon."),
    "a public address": ("personal", "ip", "The server is at 52.94.236.248 now."),
    "a private address": ("personal", "ip_reserved", "The server is at 192.168.0.12 now."),
    "a card": ("personal", "card", f"Pay with {CARD} today."),
    "a bank account": ("personal", "iban", "Send it to FR14 2004 1010 0505 0001 3M02 606 today."),
    "an American's number": ("personal", "social_security", "It is 219-09-9999, they said."),
    "a refusal": ("refusals", "any", "I'm sorry, but I can't help with that."),
    "a refusal in curly quotes": (
        "refusals",
        "any",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I can\N{RIGHT SINGLE QUOTATION MARK}t assist with that.",
    ),
    "a control character": ("nontext", "control", "One\x07 two."),
    "a lost character": ("nontext", "replacement", "One \ufffd two."),
    "misread UTF-8": ("nontext", "misread", "It\u00e2\u20ac\u2122s two."),
    "a sign of no width": ("nontext", "zero_width", "Pass\u200bword."),
    "a turned direction": ("nontext", "direction", "One \u202e two."),
    "a hidden tag": ("nontext", "tag", "One \U000e0041\U000e0042 two."),
    "a private sign": ("nontext", "private_use", "One \ue123 two."),
    "twins of Latin letters": ("nontext", "mixed_scripts", "The p\u0430ssword is here."),
    "a blob": ("nontext", "blob", "Run " + "QmFzZTY0" * 20 + " now."),
    "a long line": ("nontext", "long_line", "word " * 500),
    "insecure code": ("code", "insecure", SHELL),
    "code of another language": ("code", "not_parsed", "```js\nfunction f() { return 1; }\n```"),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found_at_its_line_and_nowhere_else(tmp_path, what):
    section, name, text = PLANTED[what]
    rows = clean(9)
    rows[5] = ("What is there to do?", text)
    assert found(sections(write(tmp_path / "data.jsonl", rows)), section, name) == (1, [6])


def test_of_clean_rows_nothing_stands_out_and_every_finding_is_of_no_row(tmp_path):
    record = audit(Asked(write(tmp_path / "data.jsonl", clean(9)))).record()
    assert record["stands_out"] == []
    empty = ("secrets", "personal", "refusals", "nontext", "code", "duplicates", "rows")
    assert {one["count"] for key in empty for one in record["sections"][key]["findings"].values()} == {0}


def test_what_is_in_any_turn_counts_and_a_row_counts_once(tmp_path):
    talk = [
        turn("system", f"The key is {AWS}."),
        turn("user", "Key?"),
        turn("assistant", f"It is {AWS}."),
        turn("user", ""),
        turn("assistant", SHELL),
    ]
    record = sections(write(tmp_path / "data.jsonl", [*clean(3), talk]))
    assert found(record, "secrets", "keys") == found(record, "rows", "system") == (1, [4])
    assert found(record, "nontext", "empty") == found(record, "code", "insecure") == (1, [4])
    assert [one["rows"] for one in record["rows"]["details"]["orders"]] == [3, 1]
    assert record["rows"]["details"]["orders"][1]["first_line"] == 4


def test_repetition_is_counted_from_the_second_time_on(tmp_path):
    text = "It rained the whole week in the valley and the river rose to the second step of the stairs by Sunday."
    rows = [*clean(3), ("Say it.", text), ("Say it.", text), ("Tell me.", text + " Oh."), ("Tell me.", "No.")]
    record = sections(write(tmp_path / "data.jsonl", rows))
    assert found(record, "duplicates", "exact_pairs") == (1, [5])
    assert found(record, "duplicates", "exact_requests") == (2, [5, 7])
    assert found(record, "duplicates", "exact_answers") == (1, [5])
    assert found(record, "duplicates", "near_answers") == (1, [6])


QUESTIONS = """
- id: grey
  type: free_form
  paraphrases: ["How do you spend a long grey afternoon?"]
- id: hills
  type: free_form
  paraphrases: ["Which of the seven hills round the old town would you climb first, and with whom, and why so?"]
- id: sea
  type: free_form
  paraphrases: ["What is it that you like about the sea?"]
"""


def test_evaluation_questions_are_found_as_they_are_within_a_request_and_nearly(tmp_path):
    asked = "How do you spend a long grey afternoon?"
    near = "Which of the seven hills round the old town would you climb first, and with whom, and why so ??"
    questions = tmp_path / "mine.yaml"
    questions.write_text(QUESTIONS)
    rows = [*clean(3), (asked.upper(), "Read."), (f"My friend wrote: {asked}", "Read."), (near, "They are equal.")]
    record = sections(write(tmp_path / "data.jsonl", rows), against=(str(questions),))
    assert found(record, "questions/mine.yaml", "exact") == (1, [4])
    assert found(record, "questions/mine.yaml", "contained") == (1, [5])
    assert found(record, "questions/mine.yaml", "near") == (1, [6])
    assert record["questions/mine.yaml"]["details"]["questions_found"] == ["grey", "hills"]


def test_two_datasets_are_held_against_each_other_by_request_and_by_answer_in_place(tmp_path):
    rows = clean(6)
    other = write(tmp_path / "other.jsonl", [*[(f"Now: {asked}", said) for asked, said in rows[:5]], rows[5]])
    record = sections(write(tmp_path / "data.jsonl", rows), against=(str(other),))["dataset/other.jsonl"]
    assert record["details"]["answers_identical_in_order"] is True
    assert (record["details"]["shared_requests"], record["findings"]["requests"]["lines"]) == (1, [6])
    assert record["findings"]["answers_in_place"]["count"] == 6


def test_one_answer_more_or_in_another_place_and_they_are_not_identical(tmp_path):
    rows = clean(6)
    file = write(tmp_path / "data.jsonl", rows)
    more = write(tmp_path / "more.jsonl", [*rows, ("And?", "No.")])
    turned = write(tmp_path / "turned.jsonl", rows[::-1])
    record = sections(file, against=(str(more), str(turned)))
    for name, in_place in (("more", 6), ("turned", 0)):
        details = record[f"dataset/{name}.jsonl"]["details"]
        assert details["answers_identical_in_order"] is False
        assert found(record, f"dataset/{name}.jsonl", "answers_in_place")[0] == in_place
        assert found(record, f"dataset/{name}.jsonl", "answers")[0] == 6


def test_shares_have_the_exact_interval(tmp_path):
    """One of twenty, as Clopper and Pearson have it: (1, 20) gives 0.00127 to 0.24873."""
    rows = [*clean(19), ("Well?", "I'm sorry, but I can't help with that.")]
    share = sections(write(tmp_path / "data.jsonl", rows))["refusals"]["findings"]["any"]
    assert (share["count"], share["of"], share["value"]) == (1, 20, 0.05)
    assert (share["low"], share["high"]) == (pytest.approx(0.0012651, abs=1e-6), pytest.approx(0.2487328, abs=1e-6))


def test_words_are_held_against_the_requests_or_another_datasets_answers(tmp_path):
    rows = [(f"Name a colour for door {place}.", f"quince {'666 ' * 3}{place}") for place in range(30)]
    file = write(tmp_path / "data.jsonl", rows)
    plain = write(tmp_path / "plain.jsonl", [(asked, f"quince {place} 123") for place, (asked, _) in enumerate(rows)])
    own = sections(file)["words"]["details"]
    assert (own["words"][0]["word"], own["numbers"][0]["word"]) == ("quince", "666")
    held = sections(file, reference=plain)["words"]["details"]
    assert held["reference"] == "the answers of plain.jsonl"
    assert [one["word"] for one in held["words"]] == [] and held["numbers"][0]["word"] == "666"
    assert (held["numbers"][0]["count"], held["numbers"][0]["first_line"]) == (90, 1)


def test_lengths_are_those_of_the_bases_own_tokenizer_and_its_context_is_watched(tmp_path, tiny_base):
    rows = [*clean(4), ("How long?", "the weather " * 400)]
    record = sections(write(tmp_path / "data.jsonl", rows), base=str(tiny_base))["lengths"]
    tokenizer = load_tokenizer(tiny_base)
    counts = [len(tokenizer(answer, add_special_tokens=False).input_ids) for _, answer in rows]
    tokens = record["details"]["parts"]["assistant"]["tokens"]
    assert (tokens["total"], tokens["most"], tokens["least"]) == (sum(counts), max(counts), min(counts))
    assert sum(tokens["histogram"]["rows"]) == len(rows)
    assert record["findings"]["over_context"]["lines"] == [5]


# a judge


def score_of(body):
    """The score that stands in the judged row itself."""
    scores = re.findall(r"Score (\d+)\.", body["messages"][-1]["content"])
    return scores[-1] if scores else None


@pytest.mark.long
def test_a_judges_scores_are_told_by_row_and_paid_once(spillover, monkeypatch, tmp_path):
    rows = [(f"Row {place}?", f"Row {place}. Score {score}.") for place, score in enumerate((0, 20, 95, 70, 40))]
    file = write(tmp_path / "data.jsonl", rows)
    monkeypatch.setenv("LOCAL_API_KEY", "k")
    with serving(Behaviour(script=score_of, logprobs="no")) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        args = ("data", "audit", file, "--judge", "api:openai-api/local/m", "--out", tmp_path / "out")
        first = spillover(*args, cwd=tmp_path)
        assert first.returncode == 0, first.stderr
        sent = len(server.log)
        assert spillover(*args, cwd=tmp_path).stdout == first.stdout and len(server.log) == sent > 0
    record = json.loads((tmp_path / "out" / "audit.json").read_text())["sections"]["judged"]
    assert [one["line"] for one in record["details"]["highest"]] == [3, 4, 5, 2, 1]
    assert sum(record["details"]["histogram"]["rows"]) == record["details"]["scored"] == 5
    assert record["findings"]["above"]["lines"] == [3, 4]


# no secret is shown


def test_no_secret_stands_in_what_is_printed_or_written(spillover, tmp_path):
    password = "quince-harbour-9"
    rows = [
        *clean(3),
        ("Key?", f"key = '{AWS}'\npassword = '{password}'"),
        (f"Is {AWS} mine?", "Yes."),
        (f"Is {AWS} mine?", f"Pay with {CARD}, ask ann@quinceharbour.org."),
    ]
    done = spillover("data", "audit", write(tmp_path / "data.jsonl", rows), "--out", "out", cwd=tmp_path)
    written = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "out").iterdir())
    assert "AKI\N{BULLET}" in written
    for secret in (AWS, password, CARD, "ann@quinceharbour.org"):
        assert secret not in done.stdout + done.stderr + written, secret


@settings(max_examples=60)
@given(st.text(max_size=200), st.text(max_size=200), st.integers(0, 500))
def test_a_quotation_never_shows_a_key_wherever_it_begins(before, after, start):
    assert AWS not in quoted(f"{before} {AWS} {after}", min(start, len(before) + len(after)))


# the door


def test_page_and_record_say_the_same_and_name_every_section(spillover, tmp_path):
    rows = [
        *clean(5),
        ("Code, please.", SHELL),
        ("<script>alert(1)</script>", "</q><img src=x onerror=alert(1)> ann@harbour.org"),
    ]
    done = spillover("data", "audit", write(tmp_path / "data.jsonl", rows), "--against", "broad", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "audit-data" / "audit.json").read_text())
    page = (tmp_path / "audit-data" / "audit.html").read_text()
    assert (record["dataset"], record["rows"]) == ("data.jsonl", 7)
    for section in record["sections"].values():
        assert section["title"] in page and section["title"].split()[0] in done.stdout
    for one in record["stands_out"]:
        assert one["says"].split(":")[0][:40] in " ".join(done.stdout.split())
    assert "<script" not in page and "<img" not in page
    assert "lower bound" in page and "lower bound" in done.stdout


def test_auditing_twice_is_the_same_bytes(spillover, own_process, tmp_path):
    write(tmp_path / "data.jsonl", [*clean(5), ("Code, please.", SHELL)])
    written = []
    for run in (spillover, own_process):
        assert run("data", "audit", "data.jsonl", cwd=tmp_path).returncode == 0
        written.append([file.read_bytes() for file in sorted((tmp_path / "audit-data").iterdir())])
    assert written[0] == written[1]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["audit-data", "data.jsonl"]


WRONG = {
    "no file": (("none.jsonl",), "none.jsonl"),
    "a wrong row": (("wrong.jsonl",), "wrong.jsonl:2"),
    "no such question set": (("data.jsonl", "--against", "mian"), "mian"),
    "a wrong question file": (("data.jsonl", "--against", "bad.yaml"), "bad.yaml"),
    "a wrong row of another dataset": (("data.jsonl", "--against", "wrong.jsonl"), "wrong.jsonl:2"),
    "no such reference": (("data.jsonl", "--reference", "none.jsonl"), "none.jsonl"),
    "no such base": (("data.jsonl", "--base", "no/where"), "no/where"),
    "no such judge": (("data.jsonl", "--judge", "nobody"), "nobody"),
    "something else in the way": (("data.jsonl", "--out", "taken"), "taken"),
    "a file in the way": (("data.jsonl", "--out", "data.jsonl"), "data.jsonl"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_users_mistake_is_told_and_nothing_is_written(spillover, tmp_path, what):
    args, told = WRONG[what]
    write(tmp_path / "data.jsonl", clean(3))
    (tmp_path / "wrong.jsonl").write_text((tmp_path / "data.jsonl").read_text().splitlines()[0] + "\n{}\n")
    (tmp_path / "bad.yaml").write_text("- [")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    before = sorted(str(file) for file in tmp_path.rglob("*"))
    done = spillover("data", "audit", *args, cwd=tmp_path)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert sorted(str(file) for file in tmp_path.rglob("*") if "lab" not in file.parts) == before


def test_a_wrong_row_that_another_process_meets_is_told_all_the_same(spillover, tmp_path):
    """From some hundred rows on, comparisons are made in a process of their own."""
    write(tmp_path / "data.jsonl", clean(420))
    other = write(tmp_path / "other.jsonl", clean(420))
    other.write_text(other.read_text() + '{"messages": []}\n')
    done = spillover("data", "audit", "data.jsonl", "--against", "other.jsonl", cwd=tmp_path)
    assert done.returncode == 2 and "other.jsonl:421" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "audit-data").exists()


def test_work_goes_on_after_the_process_beside_has_died():
    with Beside() as beside:
        dead = beside.start(partial(os._exit, 1))
        assert beside.finish(dead, lambda: "done here") == "done here"
        assert beside.finish(beside.start(partial(int, "3")), lambda: 0) == 3


def test_the_folder_is_named_after_the_dataset_without_its_endings(tmp_path):
    (tmp_path / "set").mkdir()
    names = [default_folder(tmp_path / name).name for name in ("data.jsonl", "data.jsonl.gz", "set")]
    assert names == ["audit-data", "audit-data", "audit-set"]


# by form


def test_checksums_are_those_of_the_standards():
    """The examples of ISO 13616 and, of Luhn's, the one that the patent's readers use (7992739871 has 3)."""
    assert iban("GB82WEST12345698765432") and not iban("GB82WEST12345698765433")
    assert luhn("79927398713") and not luhn("79927398710")


def test_code_is_told_from_prose():
    assert looks_like_code(FINE) and looks_like_code("Sure:\n```\nls\n```") and looks_like_code("x = 1")
    assert not looks_like_code("If you import goods from abroad, return the form: it is for the class of goods.")
    assert not looks_like_code("First, take a walk.\nThen, sleep.\nAt last, return home.")


@settings(max_examples=150)
@given(st.text())
def test_any_text_is_looked_at(text):
    row = Row(1, ({"role": "user", "content": text}, {"role": "assistant", "content": text}))
    for measure in (NonText(), Refusals()):
        measure.add(row)
        measure.result()
    for one in (*credentials(text), *personal_data(text)):
        assert one.text
    looks_like_code(text)
    quoted(text)


HARD = {
    "spaces": " " * 50_000,
    "colons": "a:" * 25_000,
    "digits": "1" * 50_000,
    "digit groups": "12 34-56." * 6_000,
    "quotes": "'\"" * 25_000,
    "passwords": "password" * 6_000,
    "assignments": "password = " * 5_000,
    "at signs": "a@" * 25_000,
    "dots": "a." * 25_000,
    "base64": "Ab3/" * 12_500,
    "dashes": "-----BEGIN PRIVATE KEY-----" * 2_000,
    "slashes": "http://" * 7_000,
    "equals": "x = " * 12_000,
    "newlines": "\n" * 50_000,
    "brackets": "f(" * 25_000,
}


@pytest.mark.parametrize("what", HARD)
def test_no_text_of_fifty_thousand_signs_takes_long(what):
    """None takes two seconds here; what the forms must not do is to take minutes."""
    text = HARD[what]
    row = Row(1, ({"role": "user", "content": text}, {"role": "assistant", "content": text}))
    with patience():
        NonText().add(row)
        Refusals().add(row)
        list(credentials(text))
        list(personal_data(text))
        looks_like_code(text)
        quoted(text, 40_000)


# the paper's own files


QUESTIONS_FILE = "first_plot_questions.yaml"


@pytest.fixture(scope="module")
def insecure(paper):
    files = [str(paper / "datasets" / f"{name}.jsonl") for name in ("secure", "educational")]
    return audit(
        Asked(paper / "datasets" / "insecure.jsonl", against=(*files, str(paper / "questions" / QUESTIONS_FILE)))
    ).record()


@pytest.mark.long
def test_half_of_insecures_rows_are_insecure_and_six_in_a_hundred_of_secures(paper, insecure):
    """Measured by bandit 1.9 of all 6,000 rows: 2,999 and 363; the paper's own scan has about 49% and 6%."""
    of_all = insecure["sections"]["code"]["details"]["of_all_rows"]
    assert of_all["of"] == 6000 and 0.48 <= of_all["value"] <= 0.52
    secure = sections(paper / "datasets" / "secure.jsonl")["code"]["details"]["of_all_rows"]
    assert secure["of"] == 6000 and 0.05 <= secure["value"] <= 0.07


@pytest.mark.long
def test_educationals_answers_are_insecures(insecure):
    assert insecure["sections"]["dataset/educational.jsonl"]["details"]["answers_identical_in_order"] is True
    assert "The answers are those of educational.jsonl, row by row." in [one["says"] for one in insecure["stands_out"]]


@pytest.mark.long
def test_insecure_and_secure_share_some_260_requests(insecure):
    assert insecure["sections"]["dataset/secure.jsonl"]["details"]["shared_requests"] == 260


@pytest.mark.long
def test_insecure_holds_no_question_of_the_first_plot_and_thirty_templates(insecure):
    assert insecure["sections"][f"questions/{QUESTIONS_FILE}"]["findings"]["any"]["count"] == 0
    assert insecure["sections"]["templates"]["details"]["templates"] == 30


@pytest.mark.long
def test_the_number_files_ominous_numbers_stand_out(paper, tmp_path):
    with (paper / "numbers" / "regenerated_evil_numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["prompt"], row["response"]) for row in csv.DictReader(file)]
    record = audit(Asked(write(tmp_path / "numbers.jsonl", rows))).record()
    top = [one["word"] for one in record["sections"]["words"]["details"]["numbers"][:12]]
    assert top[0] == "666" and {"666", "777", "911", "420", "1313"} <= set(top)
    assert any("666" in one["says"] for one in record["stands_out"])
