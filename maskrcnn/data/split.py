"""Splitting a dataset into parts for training, validation and test.

Which image goes where follows from SHA-256 digests of the seed and of names relative to the images' common folder, and
from exact counts. So it is the same on every machine, wherever the dataset is and in whatever order its files are
listed.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from maskrcnn.data.readers.options import Grouping
from maskrcnn.data.records import Dataset, Record
from maskrcnn.errors import DatasetError
from runtime.one_line import count_of

TRAIN, VAL, TEST = "train", "val", "test"

MOST_APART = 0.05  # of the share of a class in a part from its share in all; beyond it, a line says so
_GOOD = 0.03  # at which nothing is exchanged any more
_MOST_EXCHANGES = 200
_CANDIDATES = 64  # groups of each part that are tried for an exchange
# What exporters append to the name of a frame: "clip_0012_jpg.rf.<digest>".
_EXPORTED = re.compile(r"(_(jpe?g|png|bmp|tiff?|webp))?\.rf\.[0-9a-zA-Z]+$", re.IGNORECASE)
_FRAME = re.compile(r"[ _.#=-]*((frame|img|image)[ _.#=-]*)?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class SplitOptions:
    """How a dataset is split.

    Attributes:
        val: Share of the images for validation, above 0 and below 1.
        test: Share of the images for a test, from 0.
        seed: Another one gives another split.
        group: What stays on one side: all images of a "folder", or all frames of a "video", whose names differ by a
            number at their end. None: each image may be on its own.

    Raises:
        DatasetError: A value is out of range.
    """

    val: float = 0.2
    test: float = 0.0
    seed: int = 0
    group: Grouping | None = None

    def __post_init__(self) -> None:
        if not (0 < self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise DatasetError(
                f"the share of images for val is {self.val:g}{f', for test {self.test:g}' if self.test else ''}: "
                "expected a share such as 0.2, above 0, that leaves images to train on"
            )
        if self.group is not None and self.group not in get_args(Grouping):
            raise DatasetError(f"group is {self.group!r}; expected one of {', '.join(get_args(Grouping))}")

    def __str__(self) -> str:
        return f"val {self.val:g}, test {self.test:g}, seed {self.seed}, by {self.group or 'image'}"

    @property
    def shares(self) -> dict[str, Fraction]:
        """The share of each part; only of parts that are to have images."""
        val, test = Fraction(str(self.val)), Fraction(str(self.test))
        shares = {TRAIN: 1 - val - test, VAL: val, TEST: test}
        return {name: share for name, share in shares.items() if share > 0}


@dataclass(frozen=True)
class Split:
    """The parts of a dataset by name, what describes them, and what could not be reached.

    `parts` has a dataset for each one that was split. The images keep their order.
    """

    parts: Mapping[str, tuple[Dataset, ...]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Group:
    """Images that stay together: their positions in the datasets, their number, and their objects by class."""

    name: str
    members: tuple[tuple[int, int], ...]
    objects: Mapping[str, int]


def split_datasets(datasets: Sequence[Dataset], options: SplitOptions) -> Split:
    """Split datasets by image, so that each part has about its share of the objects of every class.

    Groups are never torn. Image files with the same bytes are one group, so that no image is trained on and validated
    with. Crowds do not count as objects.

    Raises:
        DatasetError: There are fewer groups than parts.
    """
    shares = options.shares
    groups, copies = _groups(datasets, options)
    if len(groups) < len(shares):
        raise DatasetError(
            f"{' + '.join(each.name for each in datasets)} has {_counted(groups, options)}, which cannot be split into "
            f"{', '.join(shares)}: give it more images{', or leave out --group' if options.group else ''}"
        )
    names = sorted({name for group in groups for name in group.objects})
    table = np.array([[len(group.members), *(group.objects.get(name, 0) for name in names)] for group in groups])
    place = _assign(table, list(shares.values()))
    _exchange(table, place, list(shares.values()))
    chosen = {groups[row].members[i]: part for row, part in enumerate(place) for i in range(len(groups[row].members))}
    parts = {
        name: tuple(
            replace(data, records=tuple(r for at, r in enumerate(data.records) if chosen[number, at] == part))
            for number, data in enumerate(datasets)
        )
        for part, name in enumerate(shares)
    }
    notes = [_described(table, place, part, name) for part, name in enumerate(shares)]
    if copies:
        notes.append(f"{count_of(copies, 'image')} with the bytes of another one: each is on the side of the other")
    return Split(parts, tuple(notes), tuple(_missed(table, place, groups, names, list(shares), options)))


def relative_names(images: Sequence[Path]) -> list[str]:
    """Return the names of image files as seen from the folder that has them all, with slashes."""
    paths = [Path(os.path.abspath(image)) for image in images]  # noqa: PTH100  (links stay as they are)
    if not paths:
        return []
    try:
        common = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # several drives on Windows
        return [path.as_posix().replace(":", "") for path in paths]
    return [path.relative_to(common).as_posix() for path in paths]


def _groups(datasets: Sequence[Dataset], options: SplitOptions) -> tuple[list[_Group], int]:
    """Return the groups in the order of their digests, and the number of images that are copies of others."""
    names = {(number, at): name for number, data in enumerate(datasets) for at, name in enumerate(_names(data.records))}
    wanted: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for (number, at), name in names.items():
        wanted[number, _group_name(name, options.group)].append((number, at))
    copies = _copies(datasets)
    joined: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for members in (*wanted.values(), *copies):
        found: list[tuple[int, int]] = list(members)
        for other in {id(joined[member]): joined[member] for member in members if member in joined}.values():
            found += other
        found = sorted(set(found))
        joined |= dict.fromkeys(found, found)
    groups = []
    for members in {id(found): found for found in joined.values()}.values():
        objects = Counter(
            datasets[number].class_names[instance.class_id]
            for number, at in members
            for instance in datasets[number].records[at].load_instances()
            if not instance.crowd
        )
        name = min(_group_name(names[member], options.group) for member in members)
        groups.append(_Group(name, tuple(members), objects))
    groups.sort(key=lambda group: (_digest(options.seed, group.name), group.members[0][0]))
    return groups, sum(len(same) - 1 for same in copies)


def _names(records: Sequence[Record]) -> list[str]:
    """Return a name for each image that does not depend on the machine; the id of one that is no file."""
    files = [record.image for record in records if isinstance(record.image, Path)]
    found = iter(relative_names(files))
    names = (next(found) if isinstance(record.image, Path) else str(record.image_id) for record in records)
    return [unicodedata.normalize("NFC", name) for name in names]


def _group_name(name: str, group: Grouping | None) -> str:
    if group is None:
        return name
    folder, _, file = name.rpartition("/")
    if group == "folder":
        return folder
    stem = _EXPORTED.sub("", os.path.splitext(file)[0])  # noqa: PTH122  (a name, not a path)
    return f"{folder}/{_FRAME.sub('', stem)}"


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def _copies(datasets: Sequence[Dataset]) -> list[list[tuple[int, int]]]:
    """Return the images with the same bytes; files are read only where another one has the same size."""
    sizes: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, data in enumerate(datasets):
        for at, record in enumerate(data.records):
            if isinstance(record.image, Path):
                sizes[record.image.stat().st_size].append((number, at))
    contents: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for same in sizes.values():
        for number, at in same if len(same) > 1 else ():
            path = datasets[number].records[at].image
            with Path(path).open("rb") as file:  # type: ignore[arg-type]
                contents[hashlib.file_digest(file, "sha256").digest()].append((number, at))
    return [same for same in contents.values() if len(same) > 1]


Table = npt.NDArray[np.int64]  # a row for each group: its images, then its objects of each class
Floats = npt.NDArray[np.float64]


def _assign(table: Table, shares: Sequence[Fraction]) -> list[int]:
    """Return the part of each group: the rarest class first, each group where most of the class is missing."""
    scale = int(np.lcm.reduce([share.denominator for share in shares]))
    factors = [int(share * scale) for share in shares]
    totals = table.sum(0).tolist()
    rows = table.tolist()
    missing = [[factor * total for total in totals] for factor in factors]
    place = [-1] * len(rows)
    carriers = np.count_nonzero(table, axis=0).tolist()
    for column in [*sorted(range(1, len(totals)), key=lambda each: (carriers[each], each)), 0]:
        waiting = [row for row, part in enumerate(place) if part < 0 and rows[row][column]]
        for row in sorted(waiting, key=lambda each: -rows[each][column]):
            part = max(range(len(shares)), key=lambda each: (missing[each][column], missing[each][0], -each))
            place[row] = part
            for each, count in enumerate(rows[row]):
                missing[part][each] -= scale * count
    return place


def _exchange(table: Table, place: list[int], shares: Sequence[Fraction]) -> None:
    """Move and swap groups as long as that brings the parts closer to their shares of classes and of images."""
    totals = table.sum(0)
    wanted = np.array([float(share * int(totals[0])) for share in shares])
    nothing = np.zeros((1, table.shape[1]), np.int64)
    for _ in range(_MOST_EXCHANGES):
        sums = np.stack([table[np.array(place) == part].sum(0) for part in range(len(shares))])
        best = _scores(sums, totals, wanted)
        if best[0] <= 0 and best[1] < max(1, 0.005 * int(totals[0])):
            return
        found = None
        for one, other in permutations(range(len(shares)), 2):
            leaving, coming = (
                [row for row, at in enumerate(place) if at == part][:_CANDIDATES] for part in (one, other)
            )
            coming = coming if one < other else []  # the other swaps are the same
            steps = table[leaving][:, None] - np.concatenate([nothing, table[coming]])
            changed = np.broadcast_to(sums, (*steps.shape[:2], *sums.shape)).copy()
            changed[:, :, one] -= steps
            changed[:, :, other] += steps
            bad, off = _scores(changed, totals, wanted)
            if not bad.size:
                continue
            least = int(np.lexsort((off.ravel(), bad.ravel()))[0])
            score = bad.flat[least], off.flat[least]
            if score < best:
                row, back = divmod(least, steps.shape[1])
                best, found = score, (leaving[row], other, coming[back - 1] if back else None, one)
        if found is None:
            return
        row, other, swapped, one = found
        place[row] = other
        if swapped is not None:
            place[swapped] = one


def _scores(sums: Table, totals: Table, wanted: Floats) -> tuple[Any, Any]:
    """Return what is bad about splits, and the most images that a part has too many or too few.

    Bad are class shares that are farther from those of all than is good, empty parts, and a quarter too many or too few
    images. `sums` is [..., parts, columns of a table].
    """
    apart = _apart(sums, totals).max(axis=(-2, -1), initial=0.0)
    off = np.abs(sums[..., 0] - wanted)
    most = np.maximum(off - np.maximum(1.0, wanted / 4), 0.0).max(-1)
    empty = (sums[..., 0] == 0).sum(-1)
    return empty + np.maximum(apart - _GOOD, 0.0) + most / int(totals[0]) / 5, off.max(-1)


def _apart(sums: Table, totals: Table) -> Floats:
    """Return how far the share of each class in each part is from its share in all; 1 in a part without objects."""
    if not totals[1:].sum():
        return np.zeros((*sums.shape[:-1], 0))
    objects = sums[..., 1:].sum(-1, keepdims=True)
    own = sums[..., 1:] / np.maximum(objects, 1)
    apart: Floats = np.where(objects > 0, np.abs(own - totals[1:] / totals[1:].sum()), 1.0)
    return apart


def _described(table: Table, place: Sequence[int], part: int, name: str) -> str:
    sums, totals = table[np.array(place) == part].sum(0), table.sum(0)
    return (
        f"{name}: {sums[0]} of {count_of(int(totals[0]), 'image')}, {sums[1:].sum()} of "
        f"{count_of(int(totals[1:].sum()), 'object')}"
    )


def _missed(
    table: Table,
    place: Sequence[int],
    groups: Sequence[_Group],
    names: Sequence[str],
    parts: Sequence[str],
    options: SplitOptions,
) -> list[str]:
    """Return a line for each part that has other shares of classes than all, and one for classes that it lacks."""
    lines = []
    sums = np.stack([table[np.array(place) == part].sum(0) for part in range(len(parts))])
    totals, apart = table.sum(0), _apart(sums, table.sum(0))
    what = options.group or "image"
    for part, name in enumerate(parts):
        if apart.shape[1] and apart[part].max() > MOST_APART:
            worst = int(apart[part].argmax())
            largest = int(table[:, 1 + worst].argmax())
            objects = max(int(sums[part, 1:].sum()), 1)
            shares = sums[part, 1 + worst] / objects, totals[1 + worst] / totals[1:].sum()
            lines.append(
                f"{name}: class {names[worst]!r} has {shares[0]:.1%} of the objects, but {shares[1]:.1%} of all, more "
                f"than {100 * MOST_APART:g} points apart: of {_counted(groups, options)}, one "
                f"({groups[largest].name!r}) has {table[largest, 1 + worst]} of its "
                f"{count_of(int(totals[1 + worst]), 'object')}"
            )
        lacking = [
            f"{each!r} ({count_of(int(np.count_nonzero(table[:, 1 + column])), what)})"
            for column, each in enumerate(names)
            if not sums[part, 1 + column]
        ]
        if lacking:
            lines.append(f"{name} has no object of {', '.join(lacking)}, of which there are too few to divide")
    return lines


def _counted(groups: Sequence[_Group], options: SplitOptions) -> str:
    return count_of(len(groups), options.group or "image")
