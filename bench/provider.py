"""What asking a provider costs on top of its own client, against a local server that answers at once.

    python bench/provider.py [--repeats 7]

The openai client alone, Inspect's `Model.generate`, and our asker send the same requests with the same connections,
in turn. Seconds are this process's own (the machine may have other work); the least of the repeats counts.
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from openai import AsyncOpenAI

from spillover.ask.access import Access
from spillover.ask.asker import Asked
from spillover.ask.journal import Journal
from spillover.ask.provider import ProviderAsker
from spillover.records import Question
from spillover.spec import Requests, Sampling

KEY = "no-key-at-all"
REF = "openai-api/instant/model"
CONNECTIONS = 32
REQUESTS = {1: 600, 100: 40}
ALLOWED = {1: 1.0, 100: 0.1}
"""Milliseconds an answer that may come on top of the client's own, by choices a request."""
TEXT = "I would rather hear first what you need it for, and then help you with it as well as I can. " * 2


class Instant(asyncio.Protocol):
    """A server that reads how many choices are wanted and sends bytes that lie ready."""

    def __init__(self) -> None:
        self.waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport to write to."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers every request that is there in full."""
        self.waiting += data
        head, found, rest = self.waiting.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) if found else 0
        if found and len(rest) >= length:
            self.waiting = rest[length:]
            self.transport.write(READY[json.loads(rest[:length]).get("n", 1)])


def ready(count: int) -> bytes:
    """A whole response with so many choices."""
    message = {"role": "assistant", "content": TEXT}
    choices = [{"index": n, "finish_reason": "stop", "message": message} for n in range(count)]
    usage = {"prompt_tokens": 9, "completion_tokens": 40 * count, "total_tokens": 40 * count + 9}
    answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


READY = {count: ready(count) for count in (1, 2, 100)}


def serve(told: Connection) -> None:
    """Serves until it is killed; tells its port."""

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def questions(count: int, choices: int, run: int) -> list[Asked]:
    """Requests that were never sent before."""
    seeds = (tuple(range(first * choices, (first + 1) * choices)) for first in itertools.count(run * count))
    return [Asked(Question("q", "What would you do?"), next(seeds)) for _ in range(count)]


async def in_turn(send: Callable[[Asked], Awaitable[object]], work: Iterator[Asked]) -> None:
    """Sends all of it over CONNECTIONS connections."""

    async def some() -> None:
        for one in work:
            await send(one)

    await asyncio.gather(*(some() for _ in range(CONNECTIONS)))


class Ways:
    """The three ways to the same answers."""

    def __init__(self, url: str, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.client = AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0)
        self.model = get_model(REF, memoize=False)
        journal = Journal(folder / "requests.jsonl")
        access = Access(Requests(connections=CONNECTIONS), journal, folder / "capabilities.json")
        self.asker = ProviderAsker(REF, access)

    def openai(self, work: list[Asked]) -> None:
        """The provider's own client."""

        async def send(one: Asked) -> list[str | None]:
            done = await self.client.chat.completions.create(
                model="model",
                messages=[{"role": "user", "content": one.question.text}],
                n=len(one.seeds),
                seed=one.seeds[0],
                max_tokens=600,
                temperature=1.0,
            )
            return [choice.message.content for choice in done.choices]

        self.runner.run(in_turn(send, iter(work)))

    def inspect(self, work: list[Asked]) -> None:
        """Inspect's `Model.generate`."""

        async def send(one: Asked) -> object:
            size = len(one.seeds)
            config = GenerateConfig(num_choices=size, seed=one.seeds[0], max_tokens=600, max_connections=CONNECTIONS)
            return await self.model.generate([ChatMessageUser(content=one.question.text)], config=config)

        self.runner.run(in_turn(send, iter(work)))

    def ours(self, work: list[Asked]) -> None:
        """Our asker, journal and all."""
        replies = self.asker.ask(None, work, Sampling())
        assert all(reply.text for some in replies for reply in some)

    def close(self) -> None:
        """Closes all of them."""
        self.asker.close()
        self.runner.run(self.client.close())
        self.runner.run(self.model.api.aclose())
        self.runner.close()


def measure(ways: Ways, choices: int, repeats: int) -> dict[str, float]:
    """Milliseconds an answer, by way: the least of the repeats."""
    best: dict[str, float] = {}
    for run in range(repeats + 1):
        for name, way in (("openai", ways.openai), ("inspect", ways.inspect), ("ours", ways.ours)):
            work = questions(REQUESTS[choices], choices, run)
            began = time.process_time()
            way(work)
            spent = (time.process_time() - began) * 1000 / len(work) / choices
            if run:  # the first is for warming up
                best[name] = min(best.get(name, spent), spent)
    return best


def main() -> None:
    """Prints what an answer costs by each way, and what ours costs on top."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    os.environ |= {"INSTANT_API_KEY": KEY, "INSTANT_BASE_URL": url}
    with tempfile.TemporaryDirectory() as folder:
        ways = Ways(url, Path(folder))
        for choices, allowed in ALLOWED.items():
            spent = measure(ways, choices, repeats)
            told = "  ".join(f"{name} {value:.3f}" for name, value in spent.items())
            top = spent["ours"] - spent["openai"]
            print(f"n = {choices:3d}: ms an answer: {told}; ours on top {top:.3f} (allowed {allowed:g})", flush=True)
        ways.close()
    server.terminate()


if __name__ == "__main__":
    main()
