"""Types of the functions that report progress."""

from collections.abc import Callable, Sequence

# Called with a sentence before each step.
Say = Callable[[str], None]
# Called with what is counted ("images", the name of a video), the number done, and the total, None if unknown.
# The first call gives what an earlier run did.
Counted = Callable[[str, int, int | None], None]

# Called with the name of an image that is done, and what was found, the most important first.
Told = Callable[[str, Sequence[str]], None]


def say_nothing(message: str) -> None:
    """Ignore a message."""


def tell_nothing(name: str, facts: Sequence[str]) -> None:
    """Ignore an image that is done."""
