"""Texts of messages: untrusted ones (file names, class names, errors of other libraries) made safe, counts, lists."""

import os
from collections.abc import Sequence


def one_line(text: object) -> str:
    """Return the text of anything on one line, without terminal control sequences.

    Characters that cannot be printed (control and formatting characters, lone surrogates in file names) become Python
    escapes; runs of white space become one space.
    """
    return escaped(" ".join(str(text).split()))


def escaped(text: str) -> str:
    """Escape as `one_line` does, but keep the spaces, as for a line of a table."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def printable_message(value: object) -> object:
    """Return `one_line` of a text that is not printable; other values are returned as they are."""
    return one_line(value) if isinstance(value, str) and not value.isprintable() else value


def printable_path(path: object) -> str:
    """Return a path as text that can be encoded as UTF-8, whatever bytes it has in the file system."""
    return os.fsencode(str(path)).decode("utf-8", "replace")


def utf8_path(path: object) -> str | None:
    """Return a path as libraries take it that encode it in UTF-8 in any locale; None if its bytes are not UTF-8."""
    try:
        return os.fsencode(str(path)).decode()
    except UnicodeDecodeError:
        return None


def count_of(count: int, what: str) -> str:
    """Return a number of things, such as "1 image" or "2 images"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def class_list(class_names: Sequence[str]) -> str:
    """Return the number of classes and the names of the first ones; the background, the first of all, is no class."""
    names = class_names[1:]
    return f"classes ({len(names)}): {', '.join(names[:5]) + (', ...' if len(names) > 5 else '') or 'none'}"
