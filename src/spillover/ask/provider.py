"""Asking providers: models by name, and adapters of the lab on a vLLM server."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from spillover.ask.access import Access
from spillover.ask.asker import Asked, Effect, Reply
from spillover.ask.capabilities import Capabilities
from spillover.ask.client import Client, Wanted
from spillover.ask.connection import PAUSE
from spillover.ask.served import VLLM, check_effect, not_loaded, served_ref, server_args
from spillover.errors import ProviderError
from spillover.records import Model
from spillover.spec import API, Sampling


class ProviderAsker:
    """Answers of models at providers.

    Args:
        base: the base's name, `PROVIDER/MODEL`; None where only models are asked that have names of their own.
        access: how providers are asked, and what is known of them.
        adapters: folders that will be asked as adapters of the base, so that a server can be started for all of them.
        pause: seconds before the first new try of a request.

    Attributes:
        effects: of each adapter that was asked, whether it was seen to differ from the base.
    """

    def __init__(
        self,
        base: str | None,
        access: Access,
        *,
        adapters: Sequence[Path] = (),
        pause: float = PAUSE,
    ) -> None:
        self.base, self.access, self.pause = base, access, pause
        self.effects: dict[Path, Effect] = {}
        self._args = server_args(adapters)
        self._base_client: Client | None = None

    def ask(self, model: Model, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers by the base (None), by a model of its own name, or by an adapter's folder; shaped as `asked`.

        Raises:
            ProviderError: the model cannot be asked at all.
            AdapterError: the adapter is another base's, is not taken by the server, or changes nothing.
        """
        if isinstance(model, Path):
            return self._adapter(model, asked, sampling)
        if model is None or model.removeprefix(API) == self._base_ref():
            return _replies(self._base(), asked, sampling)
        with self._client(model) as client:
            return _replies(client, asked, sampling)

    def close(self) -> None:
        """Closes all connections, and the server where one was started."""
        if self._base_client is not None:
            self._base_client.close()
            self._base_client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _adapter(self, folder: Path, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        ref, base = served_ref(self._base_ref(), folder), self._base()
        client = self._client(ref, base.capabilities)
        try:
            if folder not in self.effects:
                self.effects[folder] = check_effect(base, client, folder, self.access.journal)
            return _replies(client, asked, sampling)
        except ProviderError as error:
            raise (not_loaded(error, folder) if "LoRA" in error.what else error) from None
        finally:
            client.close(with_server=False)

    def _base_ref(self) -> str:
        return (self.base or "").removeprefix(API)

    def _base(self) -> Client:
        if self._base_client is None:
            self._base_client = self._client(self._base_ref())
        return self._base_client

    def _client(self, ref: str, known: Capabilities | None = None) -> Client:
        args: dict[str, Any] = self._args if ref.removeprefix(API).startswith(VLLM) else {}
        return Client(ref, self.access, known, pause=self.pause, **args)


def _replies(client: Client, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
    found = client.ask([_wanted(one, sampling) for one in asked])
    return [[choice.reply for choice in choices] for choices in found]


def _wanted(one: Asked, sampling: Sampling) -> Wanted:
    """What is asked; a question's own temperature goes before the experiment's."""
    own = one.question.temperature
    mine = sampling if own is None else sampling.model_copy(update={"temperature": own})
    return Wanted(tuple(one.question.messages()), mine, one.seeds)
