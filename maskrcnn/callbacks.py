"""Types of the functions that report progress."""

from collections.abc import Callable

# Called with a sentence before each step.
Say = Callable[[str], None]
# Called with what is counted ("images", the name of a video), the number done, and the total, None if unknown.
# The first call gives what an earlier run did.
Counted = Callable[[str, int, int | None], None]


def say_nothing(message: str) -> None:
    """Ignore a message."""
