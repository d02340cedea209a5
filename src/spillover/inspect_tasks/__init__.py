"""For people who work in Inspect: our questions as its tasks, our rubrics as its scorers, our answers as its logs.

Inspect imports this package by its entry point, and finds what is registered here as `spillover/NAME`.
"""

from spillover.inspect_tasks.scorers import SCORERS, kept, misaligned
from spillover.inspect_tasks.tasks import broad, main

__all__ = ["SCORERS", "broad", "kept", "main", "misaligned"]
