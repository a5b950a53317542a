"""Numbers, flags and paths that callers pass or assign, checked before they are used."""

import math
import os
import sys
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError


def real(name: str, value: Any, least: float = 0.0, most: float = 1.0, range_: str = "0 to 1") -> float:
    """Return a real number of a range as float; anything else, also bool, text and arrays, raises InputError."""
    try:
        number = float(value) if not isinstance(value, bool) and isinstance(value, Real) else math.nan
    except OverflowError:  # an integer beyond the largest float
        number = math.nan
    if not least <= number <= most:
        raise InputError(f"{name} is {shown(value)}: expected a number from {range_}")
    return number


def count(name: str, value: Any, least: int = 1, most: int = sys.maxsize, expected: str = "") -> int:
    """Return an integer of a range as int; anything else, also bool, raises InputError."""
    number = int(value) if not isinstance(value, bool) and isinstance(value, Integral) else None
    if number is None or not least <= number <= most:
        raise InputError(f"{name} is {shown(value)}: expected {expected or f'an integer of at least {least}'}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return True or False; anything else, also 0, 1 and text, raises InputError."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} is {shown(value)}: expected True or False")
    return bool(value)


def file_path(name: str, value: Any) -> Path:
    """Return the path of a file; what is no path, also one in bytes, raises InputError."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise InputError(f"{name} is {shown(value)}: expected a path, as str or pathlib.Path")
    return Path(path)


def shown(value: object) -> str:
    """Return a short text for any value: some are endless, and some integers refuse to become text."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  (whatever a `__repr__` raises)
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
