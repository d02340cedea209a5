"""A bound for work that must not grow too fast with its input: some ten times what it takes, however busy the machine.

It counts this thread's own time on a processor, so nothing that runs beside it matters. Speed itself is for bench/.
"""

import contextlib
import time
from collections.abc import Iterator

MUCH = 60.0
"""Seconds. Each bounded piece of work takes 6 at most on a quiet machine; what grows with the square takes minutes."""


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Fails where the work inside took longer than `MUCH`."""
    began = time.thread_time()
    yield
    assert time.thread_time() - began < MUCH
