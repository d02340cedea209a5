"""Imports that stand at the top of a module and happen at first use.

The command line must answer `--help` at once, and torch takes seconds to load. A lazy import is still declared where
all imports are, and the architecture test reads it like any other.
"""

import importlib
from types import ModuleType
from typing import Any


class _Lazy(ModuleType):
    """A module that is imported when something of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def lazy(name: str) -> Any:
    """A stand-in for the module `name`, which is imported at the first use of one of its attributes."""
    return _Lazy(name)
