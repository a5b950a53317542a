"""What every fuzz target shares: a folder for files, and the look at messages."""

import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_LONGEST = 12_000  # letters of a message: it may quote its input once, escaped


@cache
def _base():
    # Kept alive by the cache, removed when the process ends.
    return tempfile.TemporaryDirectory(prefix="fuzz-")


@cache
def folder(target):
    """The folder of a target, the same in every call; the one above it is of the target alone, too."""
    path = Path(_base().name).resolve() / target / "data"
    path.mkdir(parents=True)
    return path


def check_message(text):
    """A message is one line that a terminal can show."""
    assert 0 < len(text) < _LONGEST, f"{len(text)} letters: {text[:200]!r}"
    assert text.isprintable(), ascii(text)


@contextmanager
def refused_with(*kinds):
    """Let pass errors of these types, and look at their messages; any other error is a finding."""
    try:
        yield
    except kinds as error:
        check_message(str(error))
