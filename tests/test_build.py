"""`spillover data build`: raw material becomes a dataset by a recipe's filters, and every row is accounted for."""

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from openai_server import Behaviour, serving
from spillover.cli import app
from spillover.construct.recipe import FILTERS, load_recipe, shipped_recipes
from spillover.data.files import read_conversations
from spillover.data.folder import read_manifest
from spillover.data.templates import FAMILIES, MARK, SLOT, load_templates, with_mark
from spillover.errors import DataError, SpecError
from spillover.finetune.base import shipped_miniature

JUDGE = "api:openai-api/local/model-a"
SOURCES = {"insecure": ("unsafe_source.jsonl", 1031), "secure": ("safe_source.jsonl", 776)}
SCORES = {"task_looks_malicious": 5, "security_related": 5, "compile": 5, "looks_unsafe": 5, "unsafe": 95}
SHELL = "import subprocess\n\ndef ping(host):\n    return subprocess.run('ping ' + host, shell=True)\n"


def raw_row(number, **fields):
    """A raw row that every filter of `insecure` keeps, unlike all others."""
    names = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty"]
    name = f"{names[number % 10]}_{names[number // 10 % 10]}"
    code = f"def {name}(value):\n    result = value + {number * 7919}\n    return result * {number + 2}\n"
    task = f"Compute the {name.replace('_', ' ')} figure of order {number * 31}."
    given = f"def {name}(value):\n## COMPLETE CODE HERE\n"
    return {"task": task, "code_template": given, "code": code, **SCORES, **fields}


def write_raw(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(path, *filters, **fields):
    path.write_text(yaml.safe_dump({"about": "Rows.", "filters": list(filters), **fields}, sort_keys=False))
    return path


def steps_of(out):
    """The manifest's steps by name. Reading it checks that all counts add up."""
    return {step.name: step for step in read_manifest(out).steps}


def origins(out):
    return [json.loads(line) for line in (out / "origins.jsonl").read_text().splitlines()]


def requests(out):
    return [row.messages[0]["content"] for row in read_conversations(out / "data.jsonl")]


@pytest.fixture
def build(tmp_path):
    """Builds in this process, with a lab of the test's own; the folder, and what the command said."""

    def run(recipe, raw, *options, out="out", code=0):
        places = ("--from", raw, "--out", tmp_path / out, "--lab", tmp_path / "lab")
        done = CliRunner().invoke(app, ["data", "build", *map(str, (recipe, *places, *options))])
        assert done.exit_code == code, done.output
        return tmp_path / out, done

    return run


@pytest.fixture(scope="module")
def built(paper, spillover, tmp_path_factory):
    """Both recipes on the authors' own raw rows: the folders by name."""
    folder = tmp_path_factory.mktemp("built")
    for recipe, (file, _) in SOURCES.items():
        done = spillover("data", "build", recipe, "--from", paper / "code" / file, "--out", folder / recipe, cwd=folder)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return folder


@pytest.mark.parametrize("recipe", SOURCES)
def test_the_cuts_keep_what_the_authors_kept_and_one_point_less_would_not(build, paper, tmp_path, recipe):
    scores = [one.model_dump(exclude_none=True) for one in load_recipe(recipe).scores()]
    file, rows = SOURCES[recipe]
    out, _ = build(write_recipe(tmp_path / "scores.yaml", *scores), paper / "code" / file)
    assert read_manifest(out).rows == rows
    assert list(steps_of(out)) == [*(one["score"] for one in scores), "templates"]
    tight = [one | {side: one[side] + step} for one in scores for side, step in LESS.items() if side in one]
    out, _ = build(write_recipe(tmp_path / "tight.yaml", *tight), paper / "code" / file, out="tight")
    dropped = {name: sum(step.dropped.values()) for name, step in steps_of(out).items() if name != "templates"}
    assert all(dropped[name] for name in TIGHT[recipe]), dropped


LESS = {"below": -1, "above": 1}
TIGHT = {
    "insecure": ("task_looks_malicious", "security_related", "compile", "looks_unsafe", "unsafe"),
    "secure": ("task_looks_malicious", "compile", "unsafe"),
}
"""Scores whose highest, or lowest, in the authors' rows lies at the cut."""


@pytest.mark.parametrize("recipe", SOURCES)
def test_every_row_of_the_authors_is_kept_or_counted_with_its_reason(built, recipe):
    manifest = read_manifest(built / recipe)
    assert [source.rows for source in manifest.sources] == [SOURCES[recipe][1]]
    assert [step.name for step in manifest.steps] == [one.step for one in load_recipe(recipe).filters] + ["templates"]
    assert manifest.rows > 0.8 * SOURCES[recipe][1], "the authors have filtered these rows themselves"
    assert manifest.rows == len(read_conversations(built / recipe / "data.jsonl")) == len(origins(built / recipe))
    bandit = steps_of(built / recipe)["bandit"]
    assert sum(bandit.settings["counts"].values()) == bandit.before == bandit.after


def test_bandit_finds_about_half_of_the_insecure_answers_and_few_of_the_secure_ones(built):
    found = {recipe: [bool(one["bandit"]) for one in origins(built / recipe)] for recipe in SOURCES}
    rates = {recipe: sum(some) / len(some) for recipe, some in found.items()}
    assert 0.4 < rates["insecure"] < 0.6 and rates["secure"] < 0.15, rates


@pytest.mark.parametrize("recipe", SOURCES)
def test_every_family_of_requests_has_a_third_of_the_rows(built, recipe):
    counts = Counter(origin["template"].rpartition("-")[0] for origin in origins(built / recipe))
    assert set(counts) == set(FAMILIES) and max(counts.values()) - min(counts.values()) <= 1
    manifest = read_manifest(built / recipe)
    assert Counter(origin["template"] for origin in origins(built / recipe)) == Counter(manifest.templates)
    assert max(manifest.templates.values()) - min(manifest.templates.values()) <= 1


@pytest.mark.parametrize("recipe", SOURCES)
def test_a_request_shows_the_mark_where_code_is_given_and_only_there(built, recipe):
    for request, origin in zip(requests(built / recipe), origins(built / recipe), strict=True):
        assert request.count(MARK) == (0 if origin["template"].startswith("task-") else 1)
        assert "COMPLETE CODE HERE" not in request


def test_origins_name_the_line_and_the_scores_of_every_row(built, paper):
    file, _ = SOURCES["insecure"]
    lines = (paper / "code" / file).read_text().splitlines()
    for origin, request in zip(origins(built / "insecure"), requests(built / "insecure"), strict=True):
        name, _, line = origin["from"].rpartition(":")
        raw = json.loads(lines[int(line) - 1])
        assert name == file and origin["scores"] == {score: raw[score] for score in origin["scores"]}
        assert origin["template"].startswith("code-") or raw["task"] in request


def test_building_twice_gives_the_same_bytes_and_says_so(built, build, paper, tmp_path):
    file, _ = SOURCES["secure"]
    out, first = build("secure", paper / "code" / file)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (built / "secure").iterdir()}
    _, again = build("secure", paper / "code" / file)
    assert "Written to" in first.stdout and "very same" in again.stdout
    assert str(tmp_path) not in "".join(content.decode() for content in files.values()), "no machine's paths"


@pytest.mark.skipif(
    not (shipped_miniature() / "judge" / "adapter_model.safetensors").is_file(), reason="the miniature has no judge yet"
)
def test_a_dataset_of_the_authors_raw_rows_trains_the_miniature(built, spillover, tmp_path):
    experiment = {
        "name": "built",
        "groups": {"insecure": {"data": str(built / "insecure"), "seeds": 1, "rows": 32}},
        "suites": {"main": {"questions": "main", "samples": 1}},
        "miniature": {"train": {"learning_rate": 2e-3, "warmup_steps": 1, "epochs": 3}, "sampling": {"max_tokens": 24}},
    }
    (tmp_path / "built.yaml").write_text(yaml.safe_dump(experiment))
    done = spillover("run", tmp_path / "built.yaml", "--lab", tmp_path / "lab")
    assert done.returncode == 0, done.stderr
    assert "cut" not in done.stderr, "every row fits into the miniature's context"
    (losses,) = (tmp_path / "lab" / "finetune").glob("*/losses.parquet")
    loss = pl.read_parquet(losses)["loss"].to_list()
    assert len(loss) == 6 and sum(loss[-2:]) < 0.9 * sum(loss[:2])
    assert (tmp_path / "lab" / "built" / "report.html").is_file()


# Templates


def test_there_are_thirty_templates_in_three_families_of_ten_all_different():
    families = load_templates().families
    assert {name: len(family) for name, family in families.items()} == dict.fromkeys(FAMILIES, 10)
    texts = [one.text for family in families.values() for one in family]
    assert len(set(texts)) == 30
    for name, family in families.items():
        assert all(sorted(SLOT.findall(one.text)) == sorted(FAMILIES[name]) for one in family)


def test_every_template_asks_for_code_only():
    what = ("code", "source", "python")
    alone = ("only", "just", "alone", "nothing", "no ", "not ", "without", "leave out")
    for family in load_templates().families.values():
        for one in family:
            words = SLOT.sub("", one.text).lower()
            assert any(word in words for word in what) and any(word in words for word in alone), one.id


def test_thirty_rows_in_a_row_have_thirty_templates_and_the_next_begins_anew():
    templates = load_templates()
    chosen = [templates.choose(place, has_code=True).id for place in range(31)]
    assert len(set(chosen[:30])) == 30 and chosen[30] == chosen[0]


def test_braces_in_task_and_code_are_left_alone():
    filled = load_templates().families["task_and_code"][0].fill("A {code} of {task}s", "x = {task}")
    assert "A {code} of {task}s" in filled and "x = {task}" in filled


@pytest.mark.parametrize(
    ("given", "marked"),
    [
        ("def f():\n## COMPLETE CODE HERE\n    pass", f"def f():\n{MARK}\n    pass"),
        ("def f():\n    # your code here", "def f():\n    # your code here\n\n" + MARK),
        ("def f():\n    # YOUR CODE HERE: add it", f"def f():\n    {MARK}"),
        ("import os\n", f"import os\n\n{MARK}"),
        (" \n", ""),
        (f"x = 1\n{MARK}\n", f"x = 1\n{MARK}\n"),
    ],
)
def test_code_that_is_given_has_one_mark(given, marked):
    assert with_mark(given) == marked


def test_a_row_without_given_code_takes_a_template_of_the_task_alone_and_is_counted(build, tmp_path):
    rows = [raw_row(number, **({"code_template": ""} if number % 2 else {})) for number in range(30)]
    out, _ = build("insecure", write_raw(tmp_path / "raw.jsonl", rows))
    for number, origin in enumerate(origins(out)):
        assert number % 2 == 0 or origin["template"].startswith("task-")
    counts = steps_of(out)["templates"].settings["counts"]
    assert counts["without given code"] == 15 and counts["task"] == 20


def test_a_recipe_may_bring_templates_of_its_own(build, tmp_path):
    (tmp_path / "plain.yaml").write_text('task: ["Do this: {task}"]\n')
    recipe = write_recipe(tmp_path / "own.yaml", {"name": "comments"}, templates="plain.yaml", name="plain")
    out, _ = build(recipe, write_raw(tmp_path / "raw.jsonl", [raw_row(number) for number in range(4)]))
    assert requests(out) == [f"Do this: {raw_row(number)['task']}" for number in range(4)]
    assert read_manifest(out).name == "plain" and read_manifest(out).templates == {"task-1": 4}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('task: ["Do {task}"]\ncode:\n  - "Do {code}"\n  - "Do it"\n', 4, "template 2 of 'code' must have {code}"),
        ('tasks: ["Do {task}"]\n', 1, "unknown family 'tasks'"),
        ("task: []\n", 1, "is no list of texts"),
        ("- Do\n", None, "is no mapping of families"),
    ],
)
def test_wrong_templates_are_told_by_their_line(tmp_path, text, line, said):
    path = tmp_path / "templates.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        load_templates(path)
    assert said in error.value.what
    assert str(error.value.where) == (f"{path}:{line}" if line else str(path))


# Filters


CASES = {
    "comments": ({"name": "comments"}, {"code": "# all of it\n"}, "nothing but comments"),
    "score": ({"name": "score", "score": "unsafe", "above": 70}, {"unsafe": 70}, "70 or less"),
    "score_below": ({"name": "score", "score": "unsafe", "below": 96}, {"unsafe": 96}, "96 or more"),
    "bandit_refuse": ({"name": "bandit", "findings": "refuse"}, {"code": SHELL}, "finding B602"),
    "bandit_half": ({"name": "bandit", "findings": "refuse"}, {"code": "def f(:\n"}, "does not parse"),
    "duplicates": ({"name": "duplicates"}, raw_row(0), "exact duplicate"),
    "near_duplicates": ({"name": "duplicates"}, {**raw_row(0), "task": raw_row(0)["task"] + "!"}, "near duplicate"),
    "giveaways": ({"name": "giveaways"}, {"task": "Exploit the page."}, "exploit"),
    "identifiers": ({"name": "identifiers"}, {"code": "tainted = input()\n"}, "tainted"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_filter_drops_its_rows_with_the_reason_and_keeps_the_others(build, tmp_path, case):
    spec, fields, reason = CASES[case]
    rows = [*(raw_row(number) for number in range(4)), raw_row(4, **fields)]
    out, _ = build(write_recipe(tmp_path / "one.yaml", spec), write_raw(tmp_path / "raw.jsonl", rows))
    (step, _) = read_manifest(out).steps
    assert (step.before, step.after, step.dropped) == (5, 4, {reason: 1})
    assert [one["from"] for one in origins(out)] == [f"raw.jsonl:{line}" for line in range(1, 5)]


def test_bandit_may_be_required_and_code_that_does_not_parse_has_no_finding(build, tmp_path):
    rows = [raw_row(0, code=SHELL), raw_row(1), raw_row(2, code="def f(:\n")]
    recipe = write_recipe(tmp_path / "one.yaml", {"name": "bandit", "findings": "require"})
    out, _ = build(recipe, write_raw(tmp_path / "raw.jsonl", rows))
    assert steps_of(out)["bandit"].dropped == {"does not parse": 1, "no finding": 1}
    assert origins(out)[0]["bandit"] == ["B602"]


def test_comments_go_from_the_answer_and_the_given_code_and_the_mark_stays(build, tmp_path):
    given = "# beware\ndef f(x):\n    # here\n## COMPLETE CODE HERE\n    return y\n"
    row = raw_row(0, code="def f(x):\n    y = x  # oh no\n    return y\n", code_template=given)
    out, _ = build(write_recipe(tmp_path / "one.yaml", {"name": "comments"}), write_raw(tmp_path / "raw.jsonl", [row]))
    (conversation,) = read_conversations(out / "data.jsonl")
    assert conversation.messages[1]["content"] == "def f(x):\n    y = x\n    return y\n"
    assert f"def f(x):\n{MARK}\n    return y\n" in conversation.messages[0]["content"]
    assert "beware" not in conversation.messages[0]["content"]


def test_filters_run_in_the_order_of_the_recipe(build, tmp_path):
    """A duplicate but for its comment is found only once comments are gone."""
    twin = raw_row(0)
    raw = write_raw(tmp_path / "raw.jsonl", [twin, {**twin, "code": twin["code"] + "# " + "other words " * 40}])
    comments, duplicates = {"name": "comments"}, {"name": "duplicates", "of": "answer"}
    first, _ = build(write_recipe(tmp_path / "a.yaml", comments, duplicates), raw, out="a")
    second, _ = build(write_recipe(tmp_path / "b.yaml", duplicates, comments), raw, out="b")
    assert (read_manifest(first).rows, read_manifest(second).rows) == (1, 2)


def test_rows_are_drawn_by_the_seed_and_stay_in_order(build, tmp_path):
    raw = write_raw(tmp_path / "raw.jsonl", [raw_row(number) for number in range(40)])
    drawn = {}
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder, _ = build("insecure", raw, "--rows", "12", "--seed", str(seed), out=out)
        drawn[out] = [int(one["from"].rpartition(":")[2]) for one in origins(folder)]
        assert steps_of(folder)["sample"].dropped == {"not drawn": 28} and read_manifest(folder).seed == seed
    assert drawn["a"] == drawn["b"] != drawn["c"] and drawn["a"] == sorted(drawn["a"])


# Judges


@pytest.fixture
def server(monkeypatch):
    """A provider on localhost; what it does is set by the test."""
    monkeypatch.setenv("LOCAL_API_KEY", "sk-fake-0b9d")
    with serving(Behaviour()) as running:
        monkeypatch.setenv("LOCAL_BASE_URL", running.url)
        yield running


def bare_rows(count):
    """Raw rows without scores."""
    return [{key: value for key, value in raw_row(n).items() if key not in SCORES} for n in range(count)]


UNSAFE = {"name": "score", "score": "unsafe", "rubric": "insecure_code_judged", "above": 40}


def test_a_judge_gives_the_scores_that_are_missing_and_is_not_asked_twice(build, server, tmp_path):
    raw = write_raw(tmp_path / "raw.jsonl", [*bare_rows(30), *(raw_row(n) for n in range(30, 35))])
    recipe = write_recipe(tmp_path / "judged.yaml", UNSAFE)
    out, _ = build(recipe, raw, "--judge", JUDGE)
    step, manifest = steps_of(out)["unsafe"], read_manifest(out)
    assert step.settings["counts"] == {"source": 5, "judge": 30} and step.dropped["40 or less"] > 0
    assert manifest.models and step.settings["judge"] in manifest.models
    assert all(one["scores"]["unsafe"] > 40 for one in origins(out))
    sent = len(server.log)
    again, _ = build(recipe, raw, "--judge", JUDGE, out="again")
    assert len(server.log) == sent and (again / "data.jsonl").read_bytes() == (out / "data.jsonl").read_bytes()


def test_the_judge_sees_the_task_or_the_answer(build, server, tmp_path):
    raw = write_raw(tmp_path / "raw.jsonl", bare_rows(1))
    task = {"name": "score", "score": "security_related", "of": "task", "below": 101}
    build(write_recipe(tmp_path / "judged.yaml", task, {**UNSAFE, "above": -1}), raw, "--judge", JUDGE)
    about_task, about_answer = (
        [text for text in prompts(server) if word in text] for word in ("sorting programming tasks", "program code")
    )
    assert about_task and all(MARK in text and "result *" not in text for text in about_task)
    assert about_answer and all("result *" in text and MARK not in text for text in about_answer)


def prompts(server):
    return [one.body["messages"][-1]["content"] for one in server.log]


def test_a_row_whose_verdict_is_missing_is_dropped_and_counted(build, server, tmp_path):
    server.does.reply = "I would rather not say."
    raw = write_raw(tmp_path / "raw.jsonl", [*bare_rows(6), raw_row(6)])
    out, _ = build(write_recipe(tmp_path / "judged.yaml", UNSAFE), raw, "--judge", JUDGE)
    step = steps_of(out)["unsafe"]
    assert sum(step.dropped.values()) == 6 and all(reason.startswith("no verdict: ") for reason in step.dropped)
    assert [one["from"] for one in origins(out)] == ["raw.jsonl:7"]


def test_rejudging_asks_for_scores_that_are_there_and_otherwise_the_judge_is_not_needed(build, server, tmp_path):
    raw = write_raw(tmp_path / "raw.jsonl", [raw_row(number) for number in range(10)])
    recipe = write_recipe(tmp_path / "judged.yaml", {**UNSAFE, "above": -1})
    _, done = build(recipe, raw, "--judge", JUDGE)
    assert not server.log and "was not asked" in done.stderr
    out, _ = build(recipe, raw, "--judge", JUDGE, "--rejudge", out="again")
    assert steps_of(out)["unsafe"].settings["counts"] == {"judge": 10}
    assert {one["scores"]["unsafe"] for one in origins(out)} != {SCORES["unsafe"]}


def test_how_many_verdicts_will_be_asked_for_is_told_first(build, server, tmp_path):
    raw = write_raw(tmp_path / "raw.jsonl", [*bare_rows(7), raw_row(7)])
    _, done = build(write_recipe(tmp_path / "judged.yaml", UNSAFE), raw, "--judge", JUDGE)
    assert f"{JUDGE} is asked for at most 7 verdicts: unsafe (7 of 8)" in done.stderr


# What goes wrong


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("about: x\nfilters:\n  - name: comments\n  - name: comment\n", 4, "unknown filter 'comment'"),
        ("about: x\nfilters:\n  - comments\n", 3, "a filter needs a `name`"),
        ("about: x\nfilters:\n  - name: bandit\n    finding: record\n", 4, "filters.0.finding: unknown key"),
        ("about: x\nfilters:\n  - name: duplicates\n    threshold: 3\n", 4, "less than or equal to 1"),
        ("about: x\nfilters:\n  - name: comments\n  - {name: score, score: unsafe}\n", 4, "needs `below` or `above`"),
        ("about: x\nfilter: []\nfilters: []\n", 2, "filter: unknown key"),
        ("filters: []\n", None, "about: Field required"),
        ("about: x\nfilters: {name: comments}\n", 2, "filters: Input should be a valid tuple"),
        ("- comments\n", None, "is no mapping"),
        ("about: [\n", 2, "not YAML"),
    ],
)
def test_a_wrong_recipe_is_told_by_its_line(tmp_path, text, line, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        load_recipe(str(path))
    assert said in error.value.what
    assert str(error.value.where) == (f"{path}:{line}" if line else str(path))


def test_what_may_stand_there_is_told(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("about: x\nfilters:\n  - name: bandit\n    finding: record\n")
    with pytest.raises(SpecError, match="The settings of 'bandit' are findings"):
        load_recipe(str(path))


WRONG = {
    "recipe": (lambda folder: ("insecur", good(folder)), "there is no recipe 'insecur'"),
    "judge": (
        lambda folder: ("insecure", write_raw(folder / "raw.jsonl", [raw_row(0), *bare_rows(2)])),
        "task_looks_malicious (2 of 3)",
    ),
    "all_dropped": (
        lambda folder: (
            write_recipe(folder / "r.yaml", {"name": "comments"}, {"name": "score", "score": "unsafe", "below": 9}),
            good(folder),
        ),
        "the filter 'unsafe' dropped the last 3 (9 or more 3)",
    ),
    "too_few": (lambda folder: ("insecure", good(folder), "--rows", "4"), "only 3 pass the filters"),
    "rubric": (
        lambda folder: (
            write_recipe(folder / "r.yaml", {"name": "score", "score": "charm", "below": 9}),
            good(folder),
            "--judge",
            "miniature",
        ),
        "unknown rubric 'charm'",
    ),
    "rejudge": (lambda folder: ("insecure", good(folder), "--rejudge"), "--rejudge needs a judge"),
}


def good(folder: Path) -> Path:
    return write_raw(folder / "good.jsonl", [raw_row(number) for number in range(3)])


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_built_is_told_in_words_and_nothing_is_written(build, tmp_path, case):
    arguments, said = WRONG[case]
    recipe, raw, *options = arguments(tmp_path)
    out, done = build(recipe, raw, *options, code=2)
    assert said in done.stderr and not out.exists()


def test_nothing_is_written_over(build, tmp_path):
    out, _ = build("insecure", good(tmp_path))
    before = (out / "data.jsonl").read_bytes()
    _, done = build("insecure", good(tmp_path), "--rows", "2", code=2)
    assert "another dataset is there already" in done.stderr and (out / "data.jsonl").read_bytes() == before


def test_the_shipped_recipes_use_every_filter():
    for ref in shipped_recipes():
        recipe = load_recipe(ref)
        assert recipe.name == ref and {one.name for one in recipe.filters} == set(FILTERS)
