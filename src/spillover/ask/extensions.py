"""Packages that extend Inspect, loaded when a provider is opened: all but collections of tasks.

`get_model` loads every such package, for the providers and hooks that may be in it. One of them is inspect_evals, which
holds nothing but tasks and brings 2,400 modules: 4.5 of the 6 seconds in which a first model was opened.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points

from inspect_ai._util import entrypoints  # nothing public says which of them are loaded

TASKS_ALONE = frozenset({"inspect_evals", "spillover"})
"""Packages without providers and hooks. Whoever asks Inspect for one of their tasks has the package loaded then."""
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def without_tasks() -> Iterator[None]:
    """Loads the other packages; meanwhile Inspect takes all of them to be loaded."""
    with _ONE_AT_A_TIME:
        for name in {point.name for point in entry_points(group="inspect_ai")} - TASKS_ALONE:
            entrypoints.ensure_entry_points(name)
        before = entrypoints._inspect_ai_eps_loaded_all
        entrypoints._inspect_ai_eps_loaded_all = True
        try:
            yield
        finally:
            entrypoints._inspect_ai_eps_loaded_all = before
