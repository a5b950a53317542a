"""What is in an HDF5 file of numbers and texts, by path; `h5_classic` and `h5_apart` read it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Compressed weights hardly shrink; zeros shrink by a factor of a thousand.
_LARGEST_RATIO = 4


class RefusedError(Exception):
    """The file cannot be used; the message goes on after its path."""


class UnfamiliarError(Exception):
    """The file has a layout that Keras does not write, which says nothing about its content."""


@dataclass(frozen=True)
class H5Array:
    """An array in a file, not read yet; `dtype` is None if it holds neither numbers nor truth values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    read: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class H5Content:
    """Everything in a file, by path without a leading slash; the root is the group "".

    Attributes:
        groups: Attributes of each group: a text, a list of texts, or None for any other value.
        arrays: Every array of numbers.
        texts: Every array that is a single text.
    """

    groups: dict[str, dict[str, str | list[str] | None]] = field(default_factory=dict)
    arrays: dict[str, H5Array] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def check_declared(declared: int, size: int) -> None:
    """Refuse a file that declares more bytes of arrays, counted once per name, than four times its size."""
    if declared > _LARGEST_RATIO * size:
        raise RefusedError(f"declares more than {declared} bytes of arrays, but is only {size} bytes long")
