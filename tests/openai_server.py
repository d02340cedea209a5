"""A server on localhost that speaks OpenAI's chat completions and vLLM's adapters, and fails as it is told to.

What it answers depends on the prompt and the seed alone. What it was sent and how each request ended is kept, so that
a test can say what was sent again.
"""

import asyncio
import contextlib
import hashlib
import json
import math
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAULTS = {
    "rate": "429 with Retry-After",
    "error": "500",
    "timeout": "no answer at all",
    "cut": "the connection is closed without an answer",
    "cut_body": "the connection is closed in the middle of the answer",
    "malformed": "a body that is half a JSON object",
    "no_choices": "a JSON object without choices",
    "few": "half of the choices, rounded down",
    "no_logprobs": "choices without the probabilities that were asked for",
    "blocked": "finish_reason content_filter",
    "blocked_whole": "400 with code content_filter",
    "refused": "the refusal field is set",
    "length": "finish_reason length",
}
GIVES_ANSWERS = ("ok", "blocked", "blocked_whole", "refused", "length")
"""How a request ends that is answered in full: it need never be sent again."""
NUMBER = re.compile(r"Say the number (\d+) and nothing else")


@dataclass
class Behaviour:
    """What the server does. `faults` are rates a request, by the names of FAULTS; `rng` draws them."""

    faults: dict[str, float] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    retry_after: str = "0"
    models: tuple[str, ...] | None = None  # those that it knows; all if None
    key: str | None = None  # the only one that it lets in; all if None
    takes_n: bool = True
    takes_seed: bool = True
    logprobs: str = "yes"  # "yes", "silent" (left out without a word) or "no" (refused)
    tops: int = 20  # most of them
    reply: str = ""  # to everything, if given
    script: Callable[[dict[str, Any]], str | None] | None = None  # what it says to a request; None for the usual
    digits: bool = False  # numbers are one token a digit
    status: int | None = None  # every request ends with this status
    max_lora_rank: int = 16
    inert: bool = False  # adapters change nothing
    noise: float = 0.0  # of every log-probability


@dataclass(frozen=True)
class Logged:
    """A chat request: its body, and how it ended: "ok", the name of a fault, or "rejected"."""

    body: dict[str, Any]
    end: str

    @property
    def name(self) -> str:
        return json.dumps(self.body, sort_keys=True)


class Server:
    """The server, in a thread of its own."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.does = behaviour
        self.log: list[Logged] = []
        self.adapters: dict[str, str] = {}
        self.most_open = 0  # connections at once
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answered(self) -> Counter[str]:
        """How often each request was answered in full."""
        return Counter(one.name for one in self.log if one.end in GIVES_ANSWERS)

    def ends(self) -> Counter[str]:
        return Counter(one.end for one in self.log)

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(60), "it did not start"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.most_open = max(self.most_open, len(self._tasks))
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(raw) if raw else {}
        return await self._answer(method, path, headers, body, writer)

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: Any, writer: Any) -> bool:
        if self.does.key is not None and headers.get("authorization") != f"Bearer {self.does.key}":
            said = f"Incorrect API key provided: {headers.get('authorization')}"
            return await _send(writer, 401, _error(said, "invalid_api_key"))
        if path.endswith("/models"):
            return await _send(writer, 200, {"data": [{"id": name} for name in self.adapters]})
        if path.endswith("/load_lora_adapter"):
            return await self._load(body, writer)
        if path.endswith("/messages"):
            return await self._anthropic(body, writer)
        return await self._chat(body, writer)

    async def _anthropic(self, body: dict[str, Any], writer: Any) -> bool:
        """Anthropic's protocol, as far as a reply goes."""
        self.log.append(Logged(body, "ok"))
        content = [{"type": "text", "text": f"reply {len(self.log)}"}]
        usage = {"input_tokens": 1, "output_tokens": 2}
        fields = {"id": "m", "type": "message", "role": "assistant", "model": body["model"]}
        return await _send(writer, 200, {**fields, "content": content, "stop_reason": "end_turn", "usage": usage})

    async def _load(self, body: dict[str, Any], writer: Any) -> bool:
        config = json.loads((Path(body["lora_path"]) / "adapter_config.json").read_text())
        if config["r"] > self.does.max_lora_rank:
            said = f"LoRA rank {config['r']} is greater than max_lora_rank {self.does.max_lora_rank}."
            return await _send(writer, 400, _error(said))
        self.adapters[body["lora_name"]] = body["lora_path"]
        return await _send(writer, 200, {"status": "ok"})

    async def _chat(self, body: dict[str, Any], writer: Any) -> bool:
        status, refusal = self._objection(body)
        if status:
            self.log.append(Logged(body, "rejected"))
            return await _send(writer, status, refusal)
        fault = self._fault()
        answer = self._completion(body, fault)
        if fault == "timeout":
            self.log.append(Logged(body, fault))
            await self._stopped.wait()
            return False
        if fault in ("cut", "cut_body", "malformed"):
            self.log.append(Logged(body, fault))
            return await _spoil(writer, fault, json.dumps(answer))
        status, extra, answer = self._refusal(fault) or (200, {}, answer)
        self.log.append(Logged(body, fault))
        return await _send(writer, status, answer, extra)

    def _objection(self, body: dict[str, Any]) -> tuple[int, Any]:
        does = self.does
        if does.models is not None and body["model"] not in (*does.models, *self.adapters):
            return 404, _error(f"The model `{body['model']}` does not exist", "model_not_found")
        if does.status is not None:
            return does.status, _error("no")
        if does.logprobs == "no" and body.get("logprobs"):
            return 400, _error("logprobs are not supported")
        if body.get("top_logprobs", 0) > does.tops:
            return 400, _error(f"top_logprobs must be at most {does.tops}")
        if not does.takes_seed and "seed" in body:
            return 400, _error("unknown parameter: seed")
        return 0, None

    def _fault(self) -> str:
        drawn = self.does.rng.random()
        for name, rate in self.does.faults.items():
            assert name in FAULTS, name
            drawn -= rate
            if drawn < 0:
                return name
        return "ok"

    def _refusal(self, fault: str) -> tuple[int, dict[str, str], Any] | None:
        if fault == "rate":
            return 429, {"Retry-After": self.does.retry_after}, _error("slow down", "rate_limit_exceeded")
        if fault == "error":
            return 500, {}, _error("oops")
        if fault == "no_choices":
            return 200, {}, {"id": "x", "object": "chat.completion", "model": "m"}
        if fault == "blocked_whole":
            return 400, {}, _error("the prompt was filtered", "content_filter")
        return None

    def _completion(self, body: dict[str, Any], fault: str) -> dict[str, Any]:
        asked = body.get("n") or 1 if self.does.takes_n else 1
        count = asked // 2 if fault == "few" else asked
        choices = [self._choice(body, index, fault) for index in range(count)]
        spent = sum(len(choice["message"]["content"] or "") for choice in choices)
        usage = {"prompt_tokens": 1, "completion_tokens": spent, "total_tokens": spent + 1}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": choices,
            "usage": usage,
        }

    def _choice(self, body: dict[str, Any], index: int, fault: str) -> dict[str, Any]:
        scripted = self.does.script(body) if self.does.script is not None else None
        text = self.does.reply or scripted or said(body, index)
        refusal = "I cannot help with that." if fault == "refused" else None
        finish = {"blocked": "content_filter", "length": "length"}.get(fault, "stop")
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": None}
        choice["message"] = {"role": "assistant", "content": None if refusal else text, "refusal": refusal}
        if body.get("logprobs") and self.does.logprobs == "yes" and fault != "no_logprobs":
            choice["logprobs"] = {"content": [self._first_token(body, text)]}
        return choice

    def _first_token(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        """The first token of a text and its likeliest alternatives; an adapter shifts them unless it is inert."""
        likely = text[0] if self.does.digits else text.split()[0]
        shift = 0.0 if self.does.inert or body["model"] not in self.adapters else 0.2
        table = {likely: 0.7 - shift, "CODE": 0.2, "other": 0.1 + shift}
        tops = [
            {"token": token, "logprob": math.log(p) + self.does.rng.gauss(0, self.does.noise), "bytes": None}
            for token, p in table.items()
        ]
        return {**tops[0], "top_logprobs": tops[: body.get("top_logprobs", 0)]}


def said(body: dict[str, Any], index: int = 0) -> str:
    """The number that it is told to say, one made from the prompt where it is to rate, else a text."""
    prompt, seed = body["messages"][-1]["content"], body.get("seed")
    number = NUMBER.search(prompt)
    if number:
        return number[1]
    digest = hashlib.sha256(json.dumps([body["model"], body["messages"], seed, index]).encode()).hexdigest()
    return str(int(digest, 16) % 101) if "Rate" in prompt else f"answer {digest[:12]}"


def _error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code}}


async def _send(writer: Any, status: int, answer: Any, extra: dict[str, str] | None = None) -> bool:
    body = json.dumps(answer).encode()
    fields = {"Content-Type": "application/json", "Content-Length": len(body), **(extra or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body)
    await writer.drain()
    return True


async def _spoil(writer: Any, fault: str, text: str) -> bool:
    """An answer that breaks off: before it begins, in the middle of the body, or in the middle of its JSON."""
    if fault == "cut":
        return False
    half = text[: len(text) // 2].encode()
    length = len(half) if fault == "malformed" else len(text)
    writer.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode() + half
    )
    await writer.drain()
    return fault == "malformed"


@contextlib.contextmanager
def serving(behaviour: Behaviour | None = None) -> Iterator[Server]:
    """A running server, stopped at the end."""
    server = Server(behaviour or Behaviour())
    server.start()
    try:
        yield server
    finally:
        server.stop()
