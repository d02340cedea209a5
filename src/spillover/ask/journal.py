"""The journal: every request to a provider that succeeded, so that none is sent and paid for twice.

One JSON object a line, `{"key": ..., "reply": ...}`. Only where each line lies is kept in memory; a reply is read when
it is asked for. Keys hash what was asked; no header and no key of the provider's ever gets here.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Self

HEAD = re.compile(rb'\{"key": "([0-9a-f]{12})", "reply": ')


class Journal:
    """An append-only JSONL file, for one process.

    What a killed process left behind of its last line is cut off when the file is opened, and a line that is no entry
    is passed over: those requests are sent again.

    Args:
        path: the file; it is made where there is none, in a folder that is there.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0
        self._index()

    def get(self, key: str) -> Any:
        """The reply to the request with this key; None if none is known."""
        place = self._places.get(key)
        if place is None:
            return None
        try:
            return json.loads(os.pread(self._file.fileno(), place[1], place[0]))["reply"]
        except ValueError:  # a line that was damaged on the disk
            return None

    def put(self, key: str, reply: Any) -> None:
        """Writes a reply down, and hands it to the operating system at once."""
        line = f'{{"key": "{key}", "reply": {json.dumps(reply, separators=(",", ":"))}}}\n'.encode()
        self._file.write(line)
        self._file.flush()
        self._note(key, len(line))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def _index(self) -> None:
        """Notes where every entry lies, and cuts off a last line without its end."""
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                self._file.truncate(self._end)
                return
            head = HEAD.match(line)
            self._note(head[1].decode() if head else None, len(line))

    def _note(self, key: str | None, length: int) -> None:
        if key is not None:
            self._places[key] = (self._end, length)
        self._end += length
