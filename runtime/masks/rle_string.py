"""The compressed string of COCO's run-length encoding.

From the fourth on, each count is replaced by its difference from the count two before it. It is then written in groups
of 5 bits, lowest first: bit 6 says that more groups follow, 48 is added to make a printable character, and the last
group carries the sign.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

# 7 groups of 5 bits hold the counts of any bitmap that fits into memory and cannot overflow an int64 sum.
_MAX_GROUPS = 7


def write_counts(counts: npt.ArrayLike) -> str:
    """Compress the counts int64 [R] of a mask to COCO's string."""
    values = np.asarray(counts, np.int64)
    return write_all_counts(values, np.array([len(values)]))[0]


def write_all_counts(counts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> list[str]:
    """Compress the counts int64 [R] of N masks, one after the other, each with so many as `lengths` int64 [N] says."""
    begins = np.cumsum(lengths) - lengths
    values = counts.copy()
    values[2:] -= counts[:-2]
    for first in range(3):  # the first three of each mask are written as they are
        places = begins[lengths > first] + first
        values[places] = counts[places]
    # The groups of a count must hold its bits and one more that repeats its sign.
    span = values ^ (values >> 63)
    groups = np.ones(len(values), np.int64)
    for group in range(1, _MAX_GROUPS):
        groups += span >> (5 * group - 1) > 0
    ends = np.cumsum(groups)
    text = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    places, left = ends - groups, groups
    for _ in range(int(groups.max(initial=0))):
        text[places] = (values & 31) + np.where(left > 1, 80, 48)
        more = np.flatnonzero(left > 1)
        places, left, values = places[more] + 1, left[more] - 1, values[more] >> 5
    written = text.tobytes().decode("ascii")
    cuts = np.concatenate([[0], ends])[np.append(begins, len(counts))]
    return [written[begin:end] for begin, end in pairwise(cuts.tolist())]


def read_counts(text: str | bytes) -> npt.NDArray[np.int64]:
    """Read COCO's string: int64 [R], not yet checked for sign and sum.

    Raises:
        InputError: there is a character outside the code, or a count that is cut off or too long.
    """
    try:
        data = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise InputError(f"RLE counts have the character {text[error.start]!r}; expected ASCII 48..111") from error
    codes = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise InputError("RLE counts have a character outside ASCII 48..111; expected COCO's compressed string")
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if ends.size == 0 or ends[-1] != codes.size - 1 or (ends - starts).max() >= _MAX_GROUPS:
        raise InputError("RLE counts end in the middle of a number, or have one of more than 35 bits; copy them again")
    lengths = ends - starts + 1
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * places), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    # From the fourth on, each value is the difference from the one two before: two interleaved sums.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
