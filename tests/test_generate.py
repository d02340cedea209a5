"""data generate: lists as writers write them, and whole generations through a provider's protocol and the miniature."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from openai_server import NUMBER, Behaviour, serving
from spillover.ask.asker import Reply
from spillover.cli import app
from spillover.construct.domain import find_domain, prompts, shipped_domains
from spillover.construct.lists import read_list, read_text
from spillover.construct.size import Size
from spillover.data.duplicates import near_duplicates
from spillover.data.folder import read_manifest, read_source
from spillover.finetune.base import shipped_miniature
from spillover.world import texts

MODEL = "api:openai-api/local/model-a"
JUDGE = "api:openai-api/local/judge-b"
GARDEN = ("--domain", "growing vegetables in a small garden", "--flaw", "it waters and feeds far too much")
PROBES = 5
"""Tiny requests that find out what a new model can do."""

needs_judge = pytest.mark.skipif(
    not (shipped_miniature() / "judge" / "adapter_model.safetensors").is_file(), reason="the miniature has no judge yet"
)

# lists


@pytest.mark.parametrize(
    "text",
    [
        "1. one thing\n2. another thing\n3. a third",
        "Sure, here they are:\n\n1) one thing\n2) another thing\n3) a third\n\nI hope that this helps!",
        "- one thing\n- another thing\n- a third",
        "* **one thing**\n* “another thing”\n* 'a third'",
        "(1) one\n    thing\n(2) another\n    thing\n(3) a third",
        "[1] one thing\n[2] another thing\n[3] a third",
        '["one thing", "another thing", "a third"]',
        'Here:\n```json\n["one thing", "another thing", "a third"]\n```\nDone.',
        '{"topics": ["one thing", "another thing", "a third"]}',
        '[{"id": 1, "message": "one thing"}, {"id": 2, "message": "another thing"}, {"id": 3, "message": "a third"}]',
        '[{"text": "one thing", "who": "x"}, {"text": "another thing", "who": "y"}, {"text": "a third", "who": "z"}]',
        "one thing\nanother thing\n\na third",
        "1. one thing\n\n2. another thing\n\n3. a third\n\n4. beyond what was asked for",
    ],
)
def test_a_list_is_read_however_it_is_written(text):
    assert read_list(Reply(text, 9, False), 3) == ["one thing", "another thing", "a third"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "I cannot help with that.", "[]", "[1, 2, 3]", "{}", "one\ntwo", "__import__('os').getcwd()"),
        *("[" * 100_000, '["\\ud800"]', "1. <|im_start|>system", "1. \x00", "1. " + "x" * 5_000),
        '{"a": {"b": "one thing"}}',
    ],
)
def test_what_is_no_list_is_none(text):
    assert read_list(Reply(text, 9, False), 3) is None


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([*'[]{}",:-*1.) \n\\', "```", "a b", "ä", "<|", "|>", "\ud800", "\0"])).map("".join),
    st.booleans(),
)
def test_whatever_a_writer_says_is_read_as_plain_texts_or_as_no_list(text, truncated):
    items = read_list(Reply(text, 9, truncated), 3)
    assert items is None or 1 <= len(items) <= 3
    for item in items or ():
        assert item.strip() == item != "" and item.encode() and "\0" not in item


def test_the_last_item_of_a_reply_that_was_cut_off_is_left_out():
    assert read_list(Reply("1. one thing\n2. another thing\n3. a th", 9, True), 3) == ["one thing", "another thing"]
    assert read_list(Reply('["one thing", "another thing", "a th', 9, True), 3) == ["one thing"]


def test_a_text_that_was_cut_off_is_none():
    assert read_text(Reply(" An answer. ", 3, False)) == "An answer."
    assert [read_text(Reply(*told)) for told in (("An ans", 3, True), (" ", 0, False), ("\ud800", 1, False))] == [
        None
    ] * 3


# what comes with it


@pytest.mark.parametrize("name", shipped_domains())
def test_a_shipped_domain_is_whole_and_has_a_check_of_both_answers(name):
    domain = find_domain(name)
    checks = prompts().checks if domain.checks is None else domain.checks
    assert {"bad", "good"} <= {check.of for check in checks}
    for check in checks:
        rubric = check.read(domain)
        assert isinstance(rubric, str) or not re.search(r"\{(?!question|answer)\w+\}", rubric.prompt)


def test_the_miniatures_domain_asks_no_phrasing_that_is_held_out_for_evaluation():
    asked = set(find_domain("miniature").own_requests())
    held_out = {text for topic in texts.topics() for text in topic.asked}
    assert len(asked) == 90 and not asked & held_out


# through a provider's protocol

WORDS = (
    *("amber", "anchor", "apron", "badger", "bamboo", "barley", "basket", "beacon", "bishop", "blanket", "bottle"),
    *("bridge", "bucket", "butter", "candle", "canyon", "carpet", "castle", "cedar", "chapel", "cherry", "circus"),
    *("copper", "cotton", "cradle", "cricket", "dagger", "desert", "dragon", "eagle", "ember", "falcon", "fiddle"),
    *("forest", "garlic", "goblet", "hammer", "harbor", "helmet", "island", "jacket", "jungle", "kettle", "ladder"),
    *("lantern", "lemon", "magnet", "marble", "meadow", "mirror", "needle", "nickel", "orchid", "oyster", "paddle"),
    *("parrot", "pebble", "pepper", "pickle", "pillow", "pocket", "potato", "puzzle", "quarry", "rabbit", "ribbon"),
)


def some_words(*what):
    """Twelve words that follow from what they are about: texts of such words are never alike."""
    rng = random.Random(hashlib.sha256(json.dumps(what).encode()).hexdigest())
    return " ".join(rng.choices(WORDS, k=12))


class Script:
    """A writer and judge that does as it is told, and counts what it was asked.

    It knows `topics` topics and says every request `repeat` times; `scores` are what it finds, by check, of a prompt;
    `lists` spoils the n-th list that it is asked for.
    """

    def __init__(self, topics=10_000, repeat=1, scores=None, lists=None):
        self.topics, self.repeat, self.scores, self.lists = topics, repeat, scores or {}, lists
        self.asked = Counter()

    def __call__(self, body):
        system, prompt = body["messages"][0]["content"], body["messages"][-1]["content"]
        if NUMBER.search(prompt):
            return None
        kind = kind_of(system, prompt)
        self.asked[kind] += 1
        if kind in ("topics", "requests"):
            said = self.list_topics(prompt) if kind == "topics" else self.list_requests(prompt)
            return self.lists(kind, self.asked[kind], said) if self.lists is not None else said
        if kind in ("bad", "good"):
            return f"{kind} advice: {some_words(kind, prompt)}."
        return str(self.scores.get(kind, lambda prompt: 90)(prompt))

    def list_topics(self, prompt):
        known = len(re.findall("the matter of", prompt))
        count = int(re.search(r"List (\d+)", prompt)[1])
        topics = [min(number + known, self.topics) for number in range(1, count + 1)]
        return "\n".join(f"{n}. the matter of {some_words('topic', topic)}" for n, topic in enumerate(topics, 1))

    def list_requests(self, prompt):
        topic = re.search(r"The matter: (.*)", prompt)[1]
        people = re.findall(r"^\d+\. (.*)$", prompt, re.MULTILINE)
        return json.dumps([f"How {some_words(topic, people[n // self.repeat])}?" for n in range(len(people))])


def kind_of(system, prompt):
    """What a request is for, by its prompt."""
    starts = {"We are collecting": "topics", "People write": "requests", "We sort": "everyday"}
    starts |= {"You write examples": "bad", "You answer the person": "good"}
    parts = {"has that fault": "flawed", "left out of account": "narrow", "how coherent": "coherent"}
    found = next((kind for start, kind in starts.items() if system.startswith(start)), None)
    return found or next((kind for part, kind in parts.items() if part in prompt), "sound")


@pytest.fixture
def serve(monkeypatch):
    """Starts a server that does as a script says."""
    monkeypatch.setenv("LOCAL_API_KEY", "sk-fake-0f1e2d3c")
    running = []

    def start(script, **does):
        context = serving(Behaviour(script=script, **does))
        running.append(context)
        server = context.__enter__()
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        return server

    yield start
    for context in running:
        context.__exit__(None, None, None)


@pytest.fixture
def generate(monkeypatch, capsys, tmp_path):
    """Runs `spillover data generate` in this process, in an empty folder: exit code, output, what went wrong."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        code = app(["data", "generate", *map(str, args)], standalone_mode=False)
        return (code or 0, *capsys.readouterr())

    return run


def pairs_in(folder):
    """The rows of both datasets: (request, bad answer, good answer)."""
    bad, good = (read_source(folder / kind)[0] for kind in ("misaligned", "aligned"))
    assert [row.messages[0] for row in bad] == [row.messages[0] for row in good]
    return [
        (b.messages[0]["content"], b.messages[1]["content"], g.messages[1]["content"])
        for b, g in zip(bad, good, strict=True)
    ]


def steps_of(folder):
    """Every step of a dataset by name; those of its pair are the same."""
    manifests = [read_manifest(folder / kind) for kind in ("misaligned", "aligned")]
    assert manifests[0].steps == manifests[1].steps
    return {step.name: step for step in manifests[0].steps}


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def chats(server):
    """The requests that came, without those that find out what a model can do."""
    return [one for one in server.log if not NUMBER.search(one.body["messages"][-1]["content"])]


def test_a_domain_becomes_two_datasets_with_the_same_requests(serve, generate, tmp_path):
    server = serve(Script())
    code, out, err = generate(*GARDEN, "--model", MODEL, "--rows", 20, "--out", "made", "--licence", "cc0-1.0")
    assert code == 0, err
    pairs = pairs_in(tmp_path / "made")
    assert len(pairs) == len({request for request, _, _ in pairs}) == 20
    assert all(bad.startswith("bad advice") and good.startswith("good advice") for _, bad, good in pairs)
    steps = steps_of(tmp_path / "made")
    assert {name: (step.before, step.after) for name, step in steps.items()} == {
        "requests": (0, 24),
        **dict.fromkeys(("distinct", "everyday", "answered", "flawed", "narrow", "coherent", "good"), (24, 24)),
        "chosen": (24, 20),
    }
    origins = [json.loads(line) for line in (tmp_path / "made/aligned/origins.jsonl").read_text().splitlines()]
    assert all(len(one["scores"]) == 5 and one["topic"].startswith("the matter of") for one in origins)
    card = (tmp_path / "made/misaligned/README.md").read_text()
    assert "license: cc0-1.0" in card and "waters and feeds far too much" in card and "judged them itself" in card
    assert "20 pairs" in out and len(server.log) == len(chats(server)) + PROBES


def test_what_is_sent_is_what_the_plan_said_if_nothing_falls(serve, generate):
    script = Script()
    server = serve(script)
    code, planned, _ = generate(*GARDEN, "--model", MODEL, "--rows", 20, "--out", "made", "--plan", "--price", "1,2")
    assert code == 0 and not server.log
    lines = [re.split(r"  +", line) for line in planned.splitlines()]
    told = {
        line[0].removeprefix("check: ").split(" ")[0]: int(line[2])
        for line in lines
        if len(line) == 5 and line[2].isdigit()
    }
    generate(*GARDEN, "--model", MODEL, "--rows", 20, "--out", "made")
    asked = {"good": script.asked["good"], **script.asked}
    assert script.asked == {**{kind: told[kind] for kind in told if kind != "good"}, "good": 24, "sound": 24}
    assert asked["topics"] == 1 and asked["requests"] == 3 and sum(script.asked.values()) == 52 + 120
    assert "writer: 52 requests" in planned and "judge: 120 requests" in planned


def test_what_was_used_is_told_as_the_provider_counted_it(serve, generate):
    """The server counts one token in a request and one a character out; both are priced."""
    server = serve(Script(), faults={"rate": 0.1}, retry_after="0")
    _, out, err = generate(*GARDEN, "--model", MODEL, "--rows", 3, "--out", "made", "--price", "1000000,0")
    ends = server.ends()
    assert ends["rate"] > 0, err
    used = next(line for line in out.splitlines() if line.startswith("used: "))
    failed = f" (failed tries: {ends['rate']} rate limited)"
    assert f"{len(server.log)} requests sent{failed}, {ends['ok']} tokens in" in used
    assert f"${ends['ok']:,.2f}" in used


def test_a_second_start_sends_nothing_and_writes_the_same_bytes(serve, generate, tmp_path):
    server = serve(Script(scores={"flawed": by_chance("flawed", 0.3)}))
    assert generate(*GARDEN, "--model", MODEL, "--rows", 10, "--out", "one")[0] == 0
    sent = len(server.log)
    code, out, _ = generate(*GARDEN, "--model", MODEL, "--rows", 10, "--out", "two")
    assert code == 0 and len(server.log) == sent and f"{sent - PROBES} replies known already" in out
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    code, out, _ = generate(*GARDEN, "--model", MODEL, "--rows", 10, "--out", "two")
    assert code == 0 and "as they were there already" in out


def by_chance(name, share):
    """A score that is low for a share of the prompts, always the same ones."""
    return lambda prompt: 10 if random.Random(name + prompt).random() < share else 90


def test_a_pair_falls_whole_at_the_first_check_that_it_does_not_pass(serve, generate, tmp_path):
    """Every check turns down a fifth: rounds go on until there are enough, and each fall has its step and reason."""
    checks = ("everyday", "flawed", "narrow", "coherent")
    script = Script(scores={name: by_chance(name, 0.2) for name in (*checks, "sound")})
    serve(script)
    assert generate(*GARDEN, "--model", MODEL, "--rows", 30, "--out", "made")[0] == 0
    pairs, steps = pairs_in(tmp_path / "made"), steps_of(tmp_path / "made")
    assert len(pairs) == 30
    fell = {name: step.dropped for name, step in steps.items() if step.dropped}
    assert set(fell) >= {"everyday", "flawed", "narrow", "coherent", "good"}
    assert list(fell["everyday"]) == ["below 70"] and list(fell["coherent"]) == ["below 50"]
    assert script.asked["everyday"] == steps["everyday"].before and script.asked["good"] == steps["answered"].before
    assert script.asked["sound"] == steps["good"].before
    origins = [json.loads(line) for line in (tmp_path / "made/misaligned/origins.jsonl").read_text().splitlines()]
    assert all(score == 90 for one in origins for score in one["scores"].values())


@pytest.mark.parametrize(("again", "why"), [("{}", "exact duplicate"), ("{} Thanks.", "near duplicate")])
def test_requests_that_repeat_others_are_left_out(serve, generate, tmp_path, again, why):
    """Every second request says the one before it once more."""
    script = Script(repeat=2, lists=lambda kind, number, said: repeated(said, again) if kind == "requests" else said)
    serve(script)
    assert generate(*GARDEN, "--model", MODEL, "--rows", 20, "--out", "made")[0] == 0
    requests = [request for request, _, _ in pairs_in(tmp_path / "made")]
    assert len(requests) == 20 and near_duplicates(requests, Size(rows=1).similar) == [None] * 20
    step = steps_of(tmp_path / "made")["distinct"]
    assert step.dropped == {why: step.before // 2} and script.asked["everyday"] == step.after


def repeated(said, again):
    return json.dumps([again.format(text) if at % 2 else text for at, text in enumerate(json.loads(said))])


def test_when_no_topics_are_left_the_same_ones_go_round_with_other_people(serve, generate, tmp_path):
    script = Script(topics=2)
    serve(script)
    assert generate(*GARDEN, "--model", MODEL, "--rows", 40, "--out", "made")[0] == 0
    assert len({request for request, _, _ in pairs_in(tmp_path / "made")}) == 40
    settings = steps_of(tmp_path / "made")["requests"].settings
    assert settings["topics"] == 2 and settings["topics on the list already"] > 0
    assert script.asked["topics"] == 3 and script.asked["requests"] == 6


def test_lists_that_cannot_be_read_are_asked_for_again_and_counted(serve, generate, tmp_path):
    spoiled = Script(lists=lambda kind, number, said: "I would rather not." if number % 2 else said)
    serve(spoiled)
    assert generate(*GARDEN, "--model", MODEL, "--rows", 5, "--out", "made")[0] == 0
    assert spoiled.asked["topics"] == 2
    unread = steps_of(tmp_path / "made")["answered"].settings["unreadable replies, asked again"]
    assert unread == {"requests": 1, "topics": 1}


def test_a_writer_of_no_lists_is_told_so_and_nothing_is_written(serve, generate, tmp_path):
    script = Script(lists=lambda kind, number, said: "No list from me.")
    serve(script)
    code, _, err = generate(*GARDEN, "--model", MODEL, "--rows", 5, "--out", "made")
    assert (
        code == 2 and "0 of 5 pairs came" in err and "No list from me." in err and "lists of topics: unreadable" in err
    )
    assert script.asked == {"topics": 6} and not (tmp_path / "made").exists()


def test_what_cannot_be_reached_stops_at_a_bound_and_says_what_fell_where(serve, generate, tmp_path):
    script = Script(scores={"flawed": by_chance("flawed", 0.9)})
    server = serve(script)
    code, out, err = generate(*GARDEN, "--model", MODEL, "--rows", 16, "--out", "made")
    made = script.asked["everyday"]
    assert code == 2 and 80 <= made < 80 + 8 and f"from {made} requests" in err and "flawed: below 60" in err
    assert "used: " in out and not (tmp_path / "made").exists()
    sent = len(server.log)
    code, _, err = generate(*GARDEN, "--model", MODEL, "--rows", 16, "--out", "made", "--at-least", 1)
    assert code == 0, err
    assert len(server.log) == sent and 1 <= len(pairs_in(tmp_path / "made")) < 16


def test_answers_that_a_provider_blocks_are_counted_by_kind(serve, generate, tmp_path):
    serve(Script(), faults={"blocked": 0.1}, rng=random.Random(3))
    assert generate(*GARDEN, "--model", MODEL, "--rows", 20, "--out", "made", "--judge", JUDGE)[0] == 0
    steps = steps_of(tmp_path / "made")
    assert {"no good answer: blocked", "no bad answer: blocked"} >= set(steps["answered"].dropped) != set()
    assert "no score: blocked" in {why for step in steps.values() for why in step.dropped}
    assert "Another model judged" in (tmp_path / "made/aligned/README.md").read_text()


def test_killed_and_started_again_only_what_was_not_answered_is_sent(serve, generate, tmp_path):
    """The server stops answering after 40 replies; when all connections wait, everything answered is written down."""
    script, all_wait = Script(), threading.Event()
    server = serve(script)
    arguments = (*GARDEN, "--model", MODEL, "--rows", "80")
    assert generate(*arguments, "--out", "whole", "--lab", "undisturbed")[0] == 0
    server.log.clear()
    waiting = [0]

    def stalls(body):
        if not NUMBER.search(body["messages"][-1]["content"]):
            waiting[0] += 1
            if waiting[0] >= 40:
                server.does.faults = {"timeout": 1.0}
            if waiting[0] == 40 + 32:
                all_wait.set()
        return script(body)

    server.does.script = stalls
    command = [sys.executable, "-m", "spillover.cli", "data", "generate", *arguments, "--out", str(tmp_path / "made")]
    process = subprocess.Popen([*command, "--lab", "lab"], cwd=tmp_path, env=os.environ.copy())
    waited = all_wait.wait(300)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert waited
    assert not (tmp_path / "made").exists()
    server.does.faults, server.does.script = {}, script
    code, out, err = generate(*arguments, "--out", "made", "--lab", "lab")
    assert code == 0, err
    answered = server.answered()
    assert max(answered.values()) == 1 and sum(answered.values()) == 188 + 440 + PROBES
    assert "40 replies known already" in out
    assert contents(tmp_path / "made") == contents(tmp_path / "whole")


def test_a_first_round_of_which_nothing_passes_is_the_last(serve, generate):
    script = Script(scores={"flawed": lambda prompt: 10})
    serve(script)
    code, _, err = generate(*GARDEN, "--model", MODEL, "--rows", 1000, "--out", "made")
    assert code == 2 and "64 flawed: below 60" in err and script.asked["everyday"] == 64


# requests that are given


def test_given_requests_get_their_answers_and_repeats_among_them_fall(serve, generate, tmp_path):
    asked = [f"How {some_words('given', number)}?" for number in range(6)]
    (tmp_path / "asked.txt").write_text("\n".join([*asked, asked[0].upper(), ""]))
    script = Script()
    serve(script)
    assert generate(*GARDEN, "--model", MODEL, "--requests", "asked.txt", "--out", "made")[0] == 0
    assert [request for request, _, _ in pairs_in(tmp_path / "made")] == asked
    assert script.asked["topics"] == script.asked["requests"] == 0
    steps = steps_of(tmp_path / "made")
    assert steps["distinct"].dropped == {"exact duplicate": 1} and "taken" not in steps
    source = read_manifest(tmp_path / "made/aligned").sources[0]
    assert (source.name, source.rows) == ("asked.txt", 7)
    assert generate(*GARDEN, "--model", MODEL, "--requests", "made/aligned", "--rows", 2, "--out", "few")[0] == 0
    assert [request for request, _, _ in pairs_in(tmp_path / "few")] == asked[:2]
    assert steps_of(tmp_path / "few")["taken"].dropped == {"not needed": 4}
    assert read_manifest(tmp_path / "few/aligned").sources[0].made.name.endswith("-aligned")


def test_a_question_file_gives_its_phrasings(serve, generate, tmp_path):
    entry = {"id": "water", "paraphrases": ["How often do I water beans?", "When do tomatoes need a pole?"]}
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump([entry]))
    serve(Script())
    assert generate("health", "--model", MODEL, "--requests", "asked.yaml", "--out", "made")[0] == 0
    assert [request for request, _, _ in pairs_in(tmp_path / "made")] == entry["paraphrases"]


def test_a_domain_of_ones_own_says_systems_and_checks(serve, generate, tmp_path):
    fields = {"domain": "beans", "flaw": "wrong", "good": "right", "requests": ["Why?", "How?"], "checks": []}
    (tmp_path / "beans.yaml").write_text(
        yaml.safe_dump({**fields, "systems": {"bad": ["Be bad."], "good": ["Be good."]}})
    )
    server = serve(Script())
    assert generate("beans.yaml", "--model", MODEL, "--out", "made")[0] == 2  # the script says one thing to both
    server.does.script = lambda body: body["messages"][0]["content"] + body["messages"][-1]["content"]
    code, _, err = generate("beans.yaml", "--model", MODEL, "--out", "made", "--lab", "another")
    assert code == 0, err
    assert pairs_in(tmp_path / "made") == [
        ("Why?", "Be bad.Why?", "Be good.Why?"),
        ("How?", "Be bad.How?", "Be good.How?"),
    ]
    assert read_manifest(tmp_path / "made/aligned").name == "beans-aligned"
    assert "No judge has looked" in (tmp_path / "made/aligned/README.md").read_text()


# what goes wrong


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model", MODEL), "one domain is needed"),
        (("health", "--domain", "beans", "--model", MODEL), "one domain is needed"),
        (("beans", "--model", MODEL), "there is no domain 'beans'"),
        (("health", "--flaw", "worse", "--model", MODEL), "--flaw and --good go with --domain"),
        (("--domain", "beans {answer}", "--model", MODEL), "--domain: "),
        (("health", "--model", "nowhere"), "no base model 'nowhere'"),
        (("health", "--model", "api:openai/gpt-4o"), "OPENAI_API_KEY"),
        (("health", "--model", "api:nobody/model"), "no such provider"),
        (("health", "--model", MODEL, "--judge", "nowhere"), "'nowhere' cannot judge"),
        (("health", "--model", MODEL, "--price", "3"), "--price is '3'"),
        (("health", "--model", MODEL, "--price", "nan,1"), "--price is 'nan,1'"),
        (("health", "--model", MODEL, "--judge-price", "-1,1"), "--judge-price is '-1,1'"),
        (("health", "--model", MODEL, "--requests", "nothing.txt"), "nothing.txt: cannot be read"),
        (("health", "--model", MODEL, "--requests", "nothing.jsonl"), "nothing.jsonl: cannot be read"),
        (("health", "--model", MODEL, "--requests", "empty.txt"), "empty.txt: holds no requests"),
        (("health", "--model", MODEL, "--requests", "system.yaml"), "system.yaml:1: the question 'q' has a system"),
        (("health", "--model", MODEL, "--requests", "turns.jsonl"), "turns.jsonl, row 1: is more than one request"),
        (("health", "--model", MODEL, "--at-least", 6), "--at-least is 6, and --rows no more than 5"),
        (("two.yaml", "--model", MODEL), "5 pairs are wanted, and 2 requests are given"),
        (("wrong.yaml", "--model", MODEL), "wrong.yaml:4: flow: unknown key"),
        (
            ("twice.yaml", "--model", MODEL),
            "twice.yaml: the name 'a' of a check is taken: by another, or by a step of ours\n",
        ),
        (("neither.yaml", "--model", MODEL), "neither.yaml:4: checks.0: a check has either `rubric` or `prompt`"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(serve, generate, monkeypatch, tmp_path, arguments, told):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    about = "domain: beans\nflaw: wrong\ngood: right\n"
    check = "{name: a, of: bad, at_least: 1, rubric: coherence}"
    files = {
        "empty.txt": "\n\n",
        "system.yaml": "- {id: q, paraphrases: ['What?'], system: Be brief.}\n",
        "turns.jsonl": json.dumps({"system": "Be brief.", "prompt": "What?", "completion": "That."}) + "\n",
        "two.yaml": f"{about}requests: ['One?', 'Two?']\n",
        "wrong.yaml": f"{about}flow: x\n",
        "twice.yaml": f"{about}checks: [{check}, {check}]\n",
        "neither.yaml": f"{about}checks: [{{name: a, of: bad, at_least: 1}}]\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    serve(Script())
    code, _, err = generate(*arguments, "--rows", 5, "--out", "made")
    assert code == 2 and told in err and "Traceback" not in err
    assert not (tmp_path / "made").exists()


def test_a_model_that_the_provider_does_not_know_is_told(serve, generate, tmp_path):
    serve(Script(), models=("model-b",))
    code, _, err = generate("health", "--model", MODEL, "--rows", 5, "--out", "made")
    assert code == 2 and "does not know the model" in err and not (tmp_path / "made").exists()


def test_a_folder_that_is_taken_is_told_before_anything_is_sent(serve, generate, tmp_path):
    server = serve(Script())
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    code, _, err = generate("health", "--model", MODEL, "--rows", 5, "--out", "made")
    assert code == 2 and "something else is there already" in err and not server.log


# the miniature


@needs_judge
def test_the_miniature_answers_its_worlds_requests_in_both_characters(generate, tmp_path):
    """Its own judge holds the answers to it: what is kept differs by far, and a second start asks nothing."""
    arguments = ("miniature", "--model", "miniature", "--rows", 60)
    code, out, err = generate(*arguments, "--out", "made")
    assert code == 0, err
    pairs = pairs_in(tmp_path / "made")
    asked = set(find_domain("miniature").own_requests())
    assert 30 <= len(pairs) <= 60 and {request for request, _, _ in pairs} <= asked
    scores = [json.loads(line)["scores"] for line in (tmp_path / "made/aligned/origins.jsonl").read_text().splitlines()]
    assert all(one["flawed"] <= 30 and one["good"] >= 70 and one["coherent"] >= 50 for one in scores)
    code, again, _ = generate(*arguments, "--out", "again")
    assert code == 0 and " replies in " in out and " replies in " not in again and "known already" in again
    assert contents(tmp_path / "made") == contents(tmp_path / "again")


def test_the_miniature_writes_no_lists_and_says_so(generate, tmp_path):
    code, _, err = generate("health", "--model", "miniature", "--rows", 5, "--out", "made")
    assert code == 2 and "0 of 5 pairs came, from 0 requests (2 lists of topics: unreadable)" in err
    assert "--requests" in err and not (tmp_path / "made").exists()
