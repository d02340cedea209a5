"""Judging: rubrics, the 0 to 100 scale over token probabilities, and who judges."""

from spillover.judge.scale import expected_score

__all__ = ["expected_score"]
