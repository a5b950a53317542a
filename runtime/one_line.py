"""Text from outside, such as file names, class names and other libraries' errors, fit for a message."""

import os


def one_line(text: object) -> str:
    """Make one line of any text, with nothing in it that a terminal obeys.

    Args:
        text: of anything; what cannot be printed (control and formatting characters, halves of characters that a file
            system may hold) is replaced by its Python escape, and runs of spaces and line ends by
            one space.
    """
    return escaped(" ".join(str(text).split()))


def escaped(text: str) -> str:
    """The same for a line whose spaces are as they should be, such as one of a table."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def printable_message(value: object) -> object:
    """A text as it is where it is one printable line, else `one_line` of it; anything but text is left alone."""
    return one_line(value) if isinstance(value, str) and not value.isprintable() else value


def printable_path(path: object) -> str:
    """Return a path as text that can be written as UTF-8, whatever bytes the file system holds."""
    return os.fsencode(str(path)).decode("utf-8", "replace")
