"""Completion in a shell: of words that an argument takes, and of words that stand for a file.

Where there is no such word, the shell itself completes the names of files.
"""

from collections.abc import Callable
from glob import escape, glob


def words(*known: str) -> Callable[[str], list[str]]:
    """Return what completes one of these words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return complete


def words_or_files(*known: str) -> Callable[[str], list[str]]:
    """Return what completes one of these words, or the name of a file."""

    def complete(incomplete: str) -> list[str]:
        found = words(*known)(incomplete)
        files = glob(f"{escape(incomplete)}*") if found else []  # noqa: PTH207  (no error in a folder that is gone)
        return found + sorted(set(files) - set(found))

    return complete
