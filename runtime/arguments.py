"""Numbers that callers pass or assign, checked before they are used."""

import math
import sys
from numbers import Integral, Real
from typing import Any

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


def shown(value: object) -> str:
    """Return a short text for any value: some are endless, and some integers refuse to become text."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  (whatever a `__repr__` raises)
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
