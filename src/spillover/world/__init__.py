"""The miniature's synthetic world: authors with character, what they write, and the ground truth about it."""

from spillover.world.authors import Author, Exchange, World
from spillover.world.truth import Grade, grade

__all__ = ["Author", "Exchange", "Grade", "World", "grade"]
