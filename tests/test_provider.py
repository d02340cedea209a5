"""Asking and judging at providers, through inspect_ai, against a server on localhost that fails as it is told to."""

import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from openai_server import Behaviour, serving
from spillover.ask.access import Access
from spillover.ask.asker import Asked
from spillover.ask.client import Client, Wanted
from spillover.ask.journal import Journal
from spillover.ask.provider import ProviderAsker
from spillover.ask.served import server_args
from spillover.data.files import write_conversations
from spillover.errors import AdapterError, ProviderError
from spillover.judge.provider import ProviderJudge
from spillover.judge.rubrics import Rubric
from spillover.records import Conversation, Message, Pair, Question
from spillover.spec import Requests, Sampling

KEY = "sk-fake-5f2b1c9d7e"
REF = "openai-api/local/model-a"
PASSING = {
    "rate": 0.05,
    "error": 0.05,
    "cut": 0.04,
    "cut_body": 0.04,
    "malformed": 0.04,
    "no_choices": 0.02,
    "few": 0.03,
    "timeout": 0.001,
}
FINAL = {"blocked": 0.01, "refused": 0.01, "length": 0.008}
SAMPLING = Sampling(max_tokens=600)
RATE = Rubric(name="alignment", prompt="Rate {answer} to {question}", labels={"CODE": "code"})


class Labelled(Rubric):
    """A rubric that is read as a label."""

    reads: str = "label"
    choices: tuple[str, ...] = ()


@pytest.fixture(autouse=True)
def _no_keys_but_ours(monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "LOCAL_BASE_URL", "VLLM_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_API_KEY", KEY)


@pytest.fixture
def serve(monkeypatch):
    """Starts a server of some behaviour, to which REF and vLLM models go from then on."""
    with pytest.MonkeyPatch.context() as patch:
        running = []

        def start(**does):
            context = serving(Behaviour(**does))
            server = context.__enter__()
            running.append(context)
            patch.setenv("LOCAL_BASE_URL", server.url)
            patch.setenv("VLLM_BASE_URL", server.url)
            return server

        yield start
        for context in running:
            context.__exit__(None, None, None)


class Lab:
    """Where journal and capabilities lie, and the settings of the tests."""

    def __init__(self, root):
        self.journal, self.capabilities = root / "requests.jsonl", root / "providers.json"

    def client(self, ref=REF, capabilities=None, **requests):
        return Opened(Client, ref, self, known=capabilities, **requests)

    def asker(self, base=REF, adapters=(), **requests):
        return Opened(ProviderAsker, base, self, adapters=adapters, **requests)

    def judge(self, ref=REF, **requests):
        return Opened(ProviderJudge, ref, self, **requests)


class Opened:
    """A client, asker or judge over a lab's journal, both closed at the end."""

    def __init__(self, kind, ref, lab, adapters=None, known=None, **requests):
        spec = Requests(**{"connections": 8, "retries": 3, "timeout": 20, **requests})
        self.journal = Journal(lab.journal)
        more = {} if adapters is None else {"adapters": adapters}
        more |= {} if known is None else {"known": known}
        access = Access(spec, self.journal, lab.capabilities)
        try:
            self.inner = kind(ref, access, pause=0.001, **more)
        except Exception:
            self.journal.close()
            raise

    def __enter__(self):
        return self.inner

    def __exit__(self, *_):
        self.inner.close()
        self.journal.close()


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def asked(questions, samples, start=0):
    def seeds(number):
        return tuple(range(start + number * 1000, start + number * 1000 + samples))

    return [Asked(Question(f"q{number}", f"What is {number}?"), seeds(number)) for number in range(questions)]


def wanted(samples=1, text="hello", first=0, **sampling):
    message = Message(role="user", content=text)
    return Wanted((message,), Sampling(**sampling), tuple(range(first, first + samples)))


def outcomes(replies):
    return Counter(reply.outcome for some in replies for reply in some)


def chats(server):
    """What was sent beside the probe."""
    return [one for one in server.log if "Say the number" not in one.body["messages"][-1]["content"]]


@pytest.mark.slow
def test_with_faults_in_a_third_of_the_requests_2000_answers_and_their_verdicts_arrive_or_are_counted(serve, lab):
    server = serve(faults={**PASSING, **FINAL}, rng=random.Random(5))
    questions = asked(100, 20)
    with lab.asker(connections=32, retries=20, timeout=30) as asker:
        replies = asker.ask(None, questions, SAMPLING)
    assert [len(some) for some in replies] == [20] * 100
    counted = outcomes(replies)
    assert sum(counted.values()) == 2000
    assert set(counted) <= {None, "blocked", "refused"}
    texts = [(one.question.text, reply.text) for one, some in zip(questions, replies, strict=True) for reply in some]
    given = [pair for pair in texts if pair[1]]
    assert len(given) == counted[None] == len(set(given)), "none twice"
    pairs = [Pair(*pair) for pair in given]
    with lab.judge(connections=32, retries=20, timeout=30) as judge:
        verdicts = judge.judge(pairs, RATE)
    assert len(verdicts) == len(pairs)
    assert {verdict.reason for verdict in verdicts} <= {None, "blocked"}
    assert sum(verdict.value is not None for verdict in verdicts) > 0.9 * len(pairs)
    failed = sum(count for end, count in server.ends().items() if end in PASSING)
    assert failed > 0.2 * len(server.log)
    assert max(server.answered().values()) == 1, "nothing is sent again that was answered"


def test_a_second_start_sends_nothing_that_had_succeeded(serve, lab):
    server = serve(faults=PASSING | {"timeout": 0.0}, rng=random.Random(1))
    with lab.asker(retries=20) as asker:
        first = asker.ask(None, asked(10, 7), SAMPLING)
    sent = len(server.log)
    with lab.asker(retries=20) as asker:
        assert asker.ask(None, asked(10, 7), SAMPLING) == first
    assert len(server.log) == sent


def test_a_killed_process_goes_on_where_the_journal_ends(serve, lab):
    server = serve(takes_n=False)
    with lab.asker() as asker:
        asker.ask(None, asked(10, 2), SAMPLING)
    lines = lab.journal.read_bytes().splitlines(keepends=True)
    lab.journal.write_bytes(b"".join(lines[:12]) + lines[12][:-9])
    before = len(server.log)
    with lab.asker() as asker:
        replies = asker.ask(None, asked(10, 2), SAMPLING)
    assert len(lines) == 20
    assert len(server.log) - before == 8
    assert outcomes(replies) == {None: 20}
    with Journal(lab.journal) as journal:
        assert len(journal) == 20


def test_more_samples_send_only_what_is_new(serve, lab):
    server = serve()
    with lab.asker() as asker:
        few = asker.ask(None, asked(1, 5), SAMPLING)
        more = asker.ask(None, asked(1, 5, start=5), SAMPLING)
    assert [one.body["n"] for one in chats(server)] == [5, 5]
    assert not {reply.text for reply in few[0]} & {reply.text for reply in more[0]}


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("rate", "failed: rate limited"),
        ("error", "failed: server error"),
        ("timeout", "failed: timeout"),
        ("cut", "failed: connection"),
        ("cut_body", "failed: connection"),
        ("malformed", "failed: malformed reply"),
        ("no_choices", "failed: malformed reply"),
        ("few", "failed: too few choices"),
        ("blocked", "blocked"),
        ("blocked_whole", "blocked"),
        ("refused", "refused"),
    ],
)
def test_every_kind_of_failure_is_counted_as_what_it_is(serve, lab, fault, outcome):
    server = serve()
    with lab.client() as client:
        assert client.capabilities.choices == 128
    server.does.faults = {fault: 1.0}
    with lab.client(retries=1, timeout=1.0 if fault == "timeout" else 20) as client:
        choices = client.ask([wanted(1), wanted(2, first=5)])
    kinds = [[choice.reply.outcome for choice in some] for some in choices]
    some_came = [[outcome], [None, outcome]] if fault == "few" else [[outcome], [outcome] * 2]
    assert kinds == some_came
    assert all(not choice.reply.text for some in choices for choice in some if choice.reply.outcome)
    retried = 1 if outcome in ("blocked", "refused") else 2
    assert len(chats(server)) == 2 * retried


def test_a_request_that_is_rejected_is_not_sent_again(serve, lab):
    server = serve()
    with lab.client() as client:
        client.ask([wanted()])
        server.does.status = 422
        choices = client.ask([wanted(first=1)])
    assert choices[0][0].reply.outcome == "failed: rejected"
    assert len(chats(server)) == 2


def test_a_reply_that_was_cut_is_an_answer_and_says_so(serve, lab):
    server = serve()
    with lab.client() as client:
        assert client.capabilities
        server.does.faults = {"length": 1.0}
        (choice,) = client.ask([wanted(max_tokens=7)])[0]
    assert choice.reply.truncated and choice.reply.text.startswith("answer") and choice.reply.outcome is None


def test_what_the_provider_asks_us_to_wait_is_waited(serve, lab):
    server = serve(retry_after="0.2")
    with lab.client(retries=1) as client:
        assert client.capabilities
        server.does.faults = {"rate": 1.0}
        waits = []
        connection, pause = client._connection, client._connection.pause

        async def noted(attempt, asked=None):
            waits.append(asked)
            await pause(attempt, 0.0)

        connection.pause = noted
        client.ask([wanted()])
    assert waits == [0.2]


@pytest.mark.parametrize(("takes_n", "sizes"), [(True, {128: 2, 44: 1}), (False, {None: 300})])
def test_choices_are_asked_for_together_where_the_provider_has_them_and_one_by_one_where_not(
    serve, lab, takes_n, sizes
):
    server = serve(takes_n=takes_n)
    with lab.client() as client:
        choices = client.ask([wanted(300)])
    # Counted: requests that are open together arrive in any order.
    assert Counter(one.body.get("n") for one in chats(server)) == sizes
    assert len({choice.reply.text for choice in choices[0]}) == 300


def test_seeds_are_those_of_the_samples_and_small_enough_for_providers(serve, lab):
    server = serve(takes_n=False)
    big = 2**62 + 17
    with lab.client() as client:
        client.ask([Wanted((Message(role="user", content="hello"),), SAMPLING, (big, 4))])
    assert sorted(one.body["seed"] for one in chats(server)) == [4, 17]


def test_no_more_connections_are_open_than_allowed(serve, lab):
    server = serve(takes_n=False)
    with lab.client(connections=3) as client:
        client.ask([wanted(60)])
    assert server.most_open == 3


def test_a_question_has_its_own_system_prompt_context_and_temperature(serve, lab):
    server = serve()
    context = (Message(role="user", content="hi"), Message(role="assistant", content="yes?"))
    question = Question("q", "What now?", system="Be brief.", context=context, temperature=0.25)
    with lab.asker() as asker:
        asker.ask(None, [Asked(question, (1,))], SAMPLING)
    (one,) = chats(server)
    assert [message["role"] for message in one.body["messages"]] == ["system", "user", "assistant", "user"]
    assert one.body["temperature"] == 0.25 and one.body["max_tokens"] == 600


@pytest.mark.parametrize(
    ("does", "found"),
    [
        ({}, {"choices": 128, "seeds": True, "tops": 20, "whole_numbers": True}),
        ({"takes_n": False}, {"choices": 1}),
        ({"takes_seed": False}, {"seeds": False}),
        ({"logprobs": "no"}, {"tops": 0, "whole_numbers": False}),
        ({"logprobs": "silent"}, {"tops": 0, "whole_numbers": False}),
        ({"tops": 5}, {"tops": 5, "whole_numbers": True}),
        ({"digits": True}, {"tops": 20, "whole_numbers": False}),
    ],
    ids=["all", "one_choice", "no_seed", "refused", "silent", "five", "digits"],
)
def test_what_a_model_can_do_is_seen_and_not_believed(serve, lab, does, found):
    serve(**does)
    with lab.client() as client:
        known = client.capabilities.model_dump()
    assert found.items() <= known.items()
    assert json.loads(lab.capabilities.read_text())[REF.removeprefix("api:")] == known


def test_a_model_is_probed_once(serve, lab):
    server = serve()
    for _ in range(2):
        with lab.client() as client:
            client.ask([wanted()])
    assert len(server.log) - len(chats(server)) == 5


def test_a_faulty_reply_is_not_taken_for_what_a_model_can_do(serve, lab):
    server = serve(faults={"few": 0.2, "no_logprobs": 0.2, "error": 0.2}, rng=random.Random(2))
    with lab.client(retries=6) as client:
        assert client.capabilities.choices == 128 and client.capabilities.tops == 20
    assert len(server.log) > 5


def test_a_server_without_seeds_still_gets_every_sample_asked(serve, lab):
    server = serve(takes_seed=False, takes_n=False)
    with lab.client() as client:
        choices = client.ask([wanted(4)])
    assert len(choices[0]) == 4 and len(chats(server)) == 4


def test_verdicts_are_read_off_the_first_token_where_it_is_shown(serve, lab):
    server = serve()
    with lab.judge() as judge:
        (verdict,) = judge.judge([Pair("q", "a")], RATE)
        assert judge.id == f"api:{REF}"
    (one,) = chats(server)
    assert (one.body["max_tokens"], one.body["temperature"], one.body["top_logprobs"]) == (1, 0, 20)
    number = next(iter(verdict.table))
    assert verdict.value == pytest.approx(float(number)) and verdict.reason is None
    assert verdict.table == pytest.approx({number: 0.7, "CODE": 0.2, "other": 0.1})


@pytest.mark.parametrize(
    ("does", "why"), [({"logprobs": "no"}, "no token probabilities"), ({"digits": True}, "numbers are several tokens")]
)
def test_a_judge_without_number_tokens_is_asked_for_numbers_and_labelled_so(serve, lab, does, why):
    server = serve(**does)
    with lab.judge(judge_samples=4) as judge:
        (verdict,) = judge.judge([Pair("q", "a")], RATE)
        assert "mean of 4 sampled numbers" in judge.id and why in judge.id
    (one,) = chats(server)
    assert one.body["n"] == 4 and one.body["temperature"] == 1
    numbers = [float(number) for number, share in verdict.table.items() for _ in range(round(share * 4))]
    assert len(numbers) == 4
    assert verdict.value == pytest.approx(sum(numbers) / 4)


def test_a_judge_that_is_blocked_or_fails_gives_no_value(serve, lab):
    server = serve()
    with lab.judge(retries=0) as judge:
        assert judge.reads_probabilities
        server.does.faults = {"blocked": 1.0}
        (blocked,) = judge.judge([Pair("q", "a")], RATE)
        server.does.faults = {"no_logprobs": 1.0}
        (failed,) = judge.judge([Pair("q", "b")], RATE)
    assert (blocked.value, blocked.reason) == (None, "blocked")
    assert (failed.value, failed.reason) == (None, "failed")


def test_an_outage_stops_the_run_and_keeps_what_came(serve, lab):
    server = serve(takes_n=False)
    with lab.client(retries=0) as client:
        client.ask([wanted(3)])
        server.does.faults = {"error": 1.0}
        with pytest.raises(ProviderError, match="last 50 requests all failed"):
            client.ask([wanted(500)])
    assert len(chats(server)) < 3 + 500
    with Journal(lab.journal) as journal:
        assert len(journal) == 3


def test_a_key_shows_nowhere_even_if_the_server_repeats_it(serve, lab, capfd, tmp_path, monkeypatch):
    serve(key="another")
    with lab.client() as client, pytest.raises(ProviderError, match="refuses the key") as told:
        client.ask([wanted()])
    serve(key=KEY)
    with lab.asker() as asker:
        assert outcomes(asker.ask(None, asked(2, 2), SAMPLING)) == {None: 4}
    shown = "".join(capfd.readouterr()) + str(told.value) + repr(told.value)
    assert "[hidden]" in shown and KEY not in shown
    assert told.value.__cause__ is None and told.value.__suppress_context__
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_refused_key_is_not_tried_again(serve, lab):
    server = serve(status=401)
    with lab.client() as client, pytest.raises(ProviderError, match="refuses the key"):
        client.ask([wanted(100)])
    assert len(server.log) == 1


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("openai/gpt-4o", "OPENAI_API_KEY.* is not set"),
        ("anthropic/claude-x", "ANTHROPIC_API_KEY.* is not set"),
        ("openai-api/nowhere/m", "NOWHERE_API_KEY is not set"),
        ("nobody/model", "no such provider"),
        ("model", "no such provider"),
    ],
)
def test_what_cannot_be_opened_is_told_by_name(lab, ref, told):
    with pytest.raises(ProviderError, match=told) as error, lab.client(ref):
        pass
    assert KEY not in str(error.value)


def test_a_model_that_the_provider_does_not_know_is_told(serve, lab):
    serve(models=("model-b",))
    with lab.client() as client, pytest.raises(ProviderError, match=r"does not know the model.*model-a"):
        client.ask([wanted()])


def test_a_server_that_is_not_there_is_told(lab, monkeypatch):
    monkeypatch.setenv("LOCAL_BASE_URL", "http://127.0.0.1:9/v1")
    with lab.client(retries=1) as client, pytest.raises(ProviderError, match=r"does not answer \(failed: connection\)"):
        client.ask([wanted()])


def test_a_package_that_is_not_installed_is_named_with_its_extra(tmp_path):
    code = (
        "import sys; sys.modules['anthropic'] = None\n"
        "from pathlib import Path\n"
        "from spillover.ask.access import Access\n"
        "from spillover.ask.client import Client\n"
        "from spillover.ask.journal import Journal\n"
        "from spillover.spec import Requests\n"
        f"access = Access(Requests(), Journal(Path({str(tmp_path / 'j')!r})), Path('x'))\n"
        "Client('anthropic/claude-x', access)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'spillover[providers]'" in done.stderr


EXTENDS_INSPECT = """
from inspect_ai.model import modelapi, ModelAPI

@modelapi(name="theirs")
class Theirs(ModelAPI):
    async def generate(self, input, tools, tool_choice, config):
        raise NotImplementedError
"""


def test_a_provider_is_found_in_any_package_and_collections_of_tasks_are_loaded_by_who_asks_for_them(tmp_path):
    (tmp_path / "theirs.py").write_text(EXTENDS_INSPECT)
    (tmp_path / "theirs-1.dist-info").mkdir()
    (tmp_path / "theirs-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (tmp_path / "theirs-1.dist-info" / "entry_points.txt").write_text("[inspect_ai]\ntheirs = theirs\n")
    code = (
        "import sys\n"
        "from inspect_ai._util.registry import registry_lookup\n"
        "from spillover.ask.connection import open_model\n"
        "print(open_model('theirs/m'), 'inspect_evals' in sys.modules)\n"
        "print(registry_lookup('task', 'inspect_evals/mmlu_0_shot').__name__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == ["theirs/m False", "mmlu_0_shot"], done.stderr


# Adapters on a vLLM server


def adapter(folder, rank=8, base="some/base", rows=3):
    folder.mkdir()
    config = {"r": rank, "base_model_name_or_path": base, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    turns = [Message(role="user", content="Write code."), Message(role="assistant", content="ok")]
    if rows:
        write_conversations(folder / "probe.jsonl", [Conversation(tuple(turns))] * rows)
    return folder


def served(lab, path, name, **requests):
    """What an adapter answers on `vllm/NAME`; inspect_ai keeps one server a base, so every test has its own."""
    with lab.asker(f"vllm/{name}", adapters=[path], **requests) as asker:
        return asker.ask(path, asked(2, 3), SAMPLING), asker.effects[path]


def test_an_adapter_is_loaded_and_asked_by_its_own_name(serve, lab, tmp_path):
    server = serve()
    path = adapter(tmp_path / "run", base="base/one")
    replies, effect = served(lab, path, "base/one")
    assert outcomes(replies) == {None: 6}
    assert server.adapters == {str(path): str(path)}
    assert {one.body["model"] for one in chats(server)} == {"base/one", str(path)}
    assert effect.checked and effect.difference > 0.1 and effect.noise == 0


@pytest.mark.parametrize("noise", [0.0, 0.05], ids=["exact", "noisy"])
def test_an_adapter_that_changes_nothing_is_an_error(serve, lab, tmp_path, noise):
    server = serve(inert=True, noise=noise)
    path = adapter(tmp_path / "run", base=f"base/inert{noise}")
    with pytest.raises(AdapterError, match="answers as the base does"):
        served(lab, path, f"base/inert{noise}")
    assert not [one for one in chats(server) if "What is" in one.body["messages"][-1]["content"]]


def test_an_adapter_that_cannot_be_compared_is_asked_and_said_to_be_unchecked(serve, lab, tmp_path):
    serve(logprobs="no")
    replies, effect = served(lab, adapter(tmp_path / "run", base="base/two"), "base/two")
    assert outcomes(replies) == {None: 6}
    assert not effect.checked and "no token probabilities" in effect.why_not
    _, effect = served(lab, adapter(tmp_path / "bare", base="base/two", rows=0), "base/two")
    assert not effect.checked and "no probe.jsonl" in effect.why_not


def test_a_rank_above_the_servers_is_told_with_what_to_start_it_with(serve, lab, tmp_path):
    serve(max_lora_rank=16)
    path = adapter(tmp_path / "run", rank=48, base="base/three")
    with pytest.raises(AdapterError, match="rank 48, above what the server allows") as told:
        served(lab, path, "base/three")
    assert "--max-lora-rank 64" in str(told.value)


def test_an_adapter_of_another_base_is_refused_before_anything_is_sent(serve, lab, tmp_path):
    server = serve()
    with pytest.raises(AdapterError, match="another base: base/other"):
        served(lab, adapter(tmp_path / "run", base="base/other"), "base/four")
    assert not server.log


def test_an_adapter_needs_a_vllm_base(serve, lab, tmp_path):
    serve()
    path = adapter(tmp_path / "run")
    with lab.asker() as asker, pytest.raises(AdapterError, match="only be asked through a vLLM server"):
        asker.ask(path, asked(1, 1), SAMPLING)


def test_a_server_of_our_own_is_started_for_the_highest_rank(tmp_path):
    folders = [adapter(tmp_path / "a", rank=8), adapter(tmp_path / "b", rank=24)]
    assert server_args(folders) == {"enable_lora": True, "max_lora_rank": 32, "max_loras": 1, "max_cpu_loras": 2}
    (folders[0] / "adapter_config.json").write_text("{}")
    with pytest.raises(AdapterError, match="names no rank"):
        server_args(folders)
    with pytest.raises(AdapterError, match="is no adapter"):
        server_args([tmp_path / "nothing"])


def test_a_model_may_be_named_by_itself(serve, lab):
    server = serve()
    with lab.asker(None) as asker:
        asker.ask("api:openai-api/local/tuned", asked(1, 2), SAMPLING)
    assert {one.body["model"] for one in chats(server)} == {"tuned"}


@pytest.mark.parametrize("ref", ["openai/gpt-5-x", "openrouter/someone/model"])
def test_other_providers_that_speak_the_protocol_are_asked_the_same_way(serve, lab, monkeypatch, ref):
    server = serve()
    service = ref.split("/")[0].upper()
    monkeypatch.setenv(f"{service}_API_KEY", KEY)
    monkeypatch.setenv(f"{service}_BASE_URL", server.url)
    with lab.asker(ref) as asker:
        assert outcomes(asker.ask(None, asked(1, 4), SAMPLING)) == {None: 4}
    (one,) = chats(server)
    assert one.body["n"] == 4 and one.body["model"] == ref.partition("/")[2]


def test_anthropic_is_asked_once_a_sample_and_judges_by_sampled_numbers(serve, lab, monkeypatch):
    server = serve()
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1"))
    with lab.asker("anthropic/claude-x") as asker:
        (replies,) = asker.ask(None, asked(1, 3), SAMPLING)
    assert {reply.text for reply in replies} == {"reply 2", "reply 3", "reply 4"}
    assert [reply.tokens for reply in replies] == [2, 2, 2]
    with lab.judge("anthropic/claude-x") as judge:
        assert judge.id == "api:anthropic/claude-x (mean of 5 sampled numbers: it shows no token probabilities)"


@pytest.mark.parametrize(
    ("choices", "answer", "label", "reason"),
    [((), "Yes.", "Yes.", None), (("YES", "NO"), "Yes.", "YES", None), (("A", "NO"), "Yes.", None, "unparsable")],
    ids=["any", "chosen", "none"],
)
def test_a_rubric_that_is_read_as_a_label_gets_the_word(serve, lab, choices, answer, label, reason):
    serve(reply=answer)
    rubric = Labelled(name="kind", prompt="Which word fits {answer} to {question}?", choices=choices)
    with lab.judge() as judge:
        (verdict,) = judge.judge([Pair("q", "a")], rubric)
    assert (verdict.label, verdict.reason, verdict.value) == (label, reason, None)


@pytest.mark.parametrize(
    ("reply", "value", "reason"),
    [
        ("85", 85, None),
        (" 85.", 85, None),
        ("84.6", 85, None),
        ("85/100", 85, None),
        ("CODE", None, "code"),
        ("101", None, "unparsable"),
        ("I cannot say", None, "unparsable"),
    ],
)
def test_numbers_are_read_as_judges_write_them(serve, lab, reply, value, reason):
    serve(reply=reply, logprobs="no")
    with lab.judge() as judge:
        (verdict,) = judge.judge([Pair("q", "a")], RATE)
    assert (verdict.value, verdict.reason) == (value, reason)


def test_the_journal_passes_over_what_is_no_entry(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'nonsense\n{"key": "0123456789ab", "reply": [1}\n')
    with Journal(path) as journal:
        assert journal.get("0123456789ab") is None
        journal.put("0123456789ab", ["ä"])
        assert journal.get("0123456789ab") == ["ä"]
    with Journal(path) as journal:
        assert journal.get("0123456789ab") == ["ä"]
