"""What was found in overlapping tiles to the objects of the image.

Two tiles show the same pixels where they overlap. So masks of both are compared in that zone: parts of an object agree
there, however little of a large object the zone holds, and neighbors do not. Beyond the zone a part may go on only
through a side of the tile by which the other part is cut off.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.detections import Detections
from runtime.masks.edges import Edges
from runtime.masks.regions import (
    area_within,
    edges_area,
    is_inside,
    join_edges,
    move_edges,
    runs_box,
    shared_area,
)
from runtime.tiles.tiling import Tile

# Masks of one object in two tiles have at least this IoU where both tiles show it.
_SAME = 0.5
# What is cut off and has no such partner is part of a mask that covers at least this share of it. Two masks of one tile
# that share more than the other number are two objects, also if a mask of another tile covers both.
_COVERED, _APART = 0.5, 0.1
# A network may end the mask of a cut object two pixels, and this share of its side, before the side of the tile.
_SHORT, _SHORT_PIXELS = 0.05, 2
# Other parts may reach beyond the tile that shows an object completely by this share of its area.
_BEYOND = 0.1
# Masks with this IoU share half of their pixels: such objects are two only if a tile that shows both finds both.
_RIVALS = 1 / 3


class Parts:
    """The detections in the tiles of one image, until all are known.

    Args:
        image_size: (height, width) of the image.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        self._size = image_size
        self._tiles: list[Tile] = []
        self._found: list[Detections] = []

    def add(self, tile: Tile, found: Detections) -> None:
        """Keep what was found in a tile, in the frame of the image."""
        edges = [each for batch in found.edge_batches() for each in batch]
        moved = tuple(move_edges(each, found.image_size[0], (tile.top, tile.left), self._size[0]) for each in edges)
        boxes = found.boxes + np.array([tile.left, tile.top] * 2, np.float32)
        self._found.append(replace(found, boxes=boxes, image_size=self._size, edges=moved, remembered=None))
        self._tiles.append(tile)

    def merged(self) -> Detections:
        """Return the objects, best score first; equal scores by tile, then as the network returned them.

        An object that a tile shows completely is as found there; if several do, as found with the best score. Of other
        objects, mask and box are those of all parts together, and the score is the best of their scores.
        """
        found = _concatenated(self._found)
        views = _Views(found, self._tiles, np.repeat(np.arange(len(self._tiles)), [len(each) for each in self._found]))
        rows: list[int] = []
        unions: dict[int, Detections] = {}
        for group in _grouped(views, found.class_ids):
            best, complete = views.choose(group)
            if not complete:
                unions[len(rows)] = found[group]
            rows.append(best)
        objects = _with_unions(found[rows], unions)
        return objects[np.argsort(-objects.scores, kind="stable")]


def _concatenated(found: Sequence[Detections]) -> Detections:
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(each, name) for each in found])
        for name in ("boxes", "scores", "class_ids", "mask_probabilities")
    }
    return replace(found[0], **arrays, edges=tuple(edges for each in found for edges in each.edges or ()))


class _Views:
    """N detections, each with the tile that shows it; rectangles are int64 [N, 4], x1, y1, x2, y2."""

    def __init__(self, found: Detections, tiles: Sequence[Tile], numbers: npt.NDArray[np.int64]) -> None:
        self.numbers = numbers  # of the tiles
        self.edges: tuple[Edges, ...] = found.edges or ()
        self.scores = found.scores
        self.height, width = found.image_size
        self.tiles = np.array(tiles, np.int64)[numbers][:, [1, 0, 3, 2]]
        empty = (0, 0, 0, 0)
        bounds = [runs_box(each[::2], each[1::2], self.height) if len(each) else empty for each in self.edges]
        self.bounds = np.array(bounds, np.int64).reshape(-1, 4)
        limits = np.array([0, 0, width, self.height])
        inner = self.tiles != limits  # sides of the tile that are not those of the image
        gaps = np.abs(self.bounds - self.tiles)
        extent = np.tile(self.bounds[:, 2:] - self.bounds[:, :2], 2)
        self.touches = (inner & (gaps == 0)).any(axis=1)
        self.cut_sides = inner & (gaps <= _SHORT_PIXELS + _SHORT * extent)
        self.cut = self.cut_sides.any(axis=1)
        # Where an object may be of which a detection is the part that its tile shows.
        self.reach = np.where(self.cut_sides, self.tiles, limits)

    def area_for(self, row: int, other: int) -> int:
        """Return the area of a mask, without what its tile shows beyond the sides by which the other is cut off."""
        x1, y1, x2, y2 = self.reach[other].tolist()
        return area_within(self.edges[row], (x1, y1, x2, y2), self.height)

    def shows(self, tile: int, row: int) -> bool:
        """Return whether the tile of one detection shows all of another one, or nearly all."""
        x1, y1, x2, y2 = self.tiles[tile].tolist()
        shown = area_within(self.edges[row], (x1, y1, x2, y2), self.height)
        return shown >= (1 - _BEYOND) * edges_area(self.edges[row])

    def choose(self, group: Sequence[int]) -> tuple[int, bool]:
        """Return the best detection of a group, and whether it shows the object completely."""
        best_first = sorted(group, key=lambda row: (-float(self.scores[row]), row))
        if len(group) == 1:
            return best_first[0], True
        for row in best_first:
            x1, y1, x2, y2 = self.tiles[row].tolist()
            others = [self.edges[each] for each in group if each != row]
            beyond = max(edges_area(each) - area_within(each, (x1, y1, x2, y2), self.height) for each in others)
            if not self.touches[row] and beyond <= _BEYOND * edges_area(self.edges[row]):
                return row, True
        return best_first[0], False


class _Pair(NamedTuple):
    """Two detections of a class in different tiles whose masks share pixels."""

    part: int  # the smaller one where both tiles show the object
    whole: int
    shared: int  # pixels
    iou: float  # where both tiles show the object
    cover: float  # share of the part that the whole covers


def _pairs(views: _Views, class_ids: npt.NDArray[np.int32]) -> Iterator[_Pair]:
    rows = [np.flatnonzero(views.numbers == number) for number in range(int(views.numbers.max(initial=-1)) + 1)]
    for here, there in combinations([each for each in rows if len(each)], 2):
        if not _meet(views.tiles[here[:1]], views.tiles[there[:1]]).any():
            continue
        same = class_ids[here][:, None] == class_ids[there]
        for a, b in np.argwhere(_meet(views.bounds[here], views.bounds[there]) & same).tolist():
            yield from _compared(views, int(here[a]), int(there[b]))


def _meet(these: npt.NDArray[np.int64], those: npt.NDArray[np.int64]) -> Any:
    """Return whether rectangles share pixels, bool [N, M]."""
    low = np.maximum(these[:, None, :2], those[:, :2])
    high = np.minimum(these[:, None, 2:], those[:, 2:])
    return np.all(low < high, axis=2)


def _compared(views: _Views, row: int, other: int) -> Iterator[_Pair]:
    shared = shared_area(views.edges[row], views.edges[other])
    if shared:
        part, whole = sorted([(views.area_for(row, other), row), (views.area_for(other, row), other)])
        yield _Pair(part[1], whole[1], shared, shared / (part[0] + whole[0] - shared), shared / part[0])


def _grouped(views: _Views, class_ids: npt.NDArray[np.int32]) -> list[list[int]]:
    """Return the detections of each object, in the order of the first of them."""
    groups = {row: [row] for row in range(len(class_ids))}
    group_of = list(range(len(class_ids)))

    def join(row: int, other: int) -> None:
        kept, left = sorted((group_of[row], group_of[other]))
        groups[kept] += groups.pop(left)
        for each in groups[kept]:
            group_of[each] = kept

    def tiles_of(row: int) -> set[int]:
        return {int(views.numbers[each]) for each in groups[group_of[row]]}

    def are_apart(row: int, other: int) -> bool:
        return not any(
            views.numbers[a] == views.numbers[b]
            and shared_area(views.edges[a], views.edges[b])
            > _APART * min(map(edges_area, (views.edges[a], views.edges[b])))
            for a in groups[group_of[row]]
            for b in groups[group_of[other]]
        )

    pairs = list(_pairs(views, class_ids))
    for pair in _most_certain_first(pairs, views):
        if pair.iou >= _SAME and not tiles_of(pair.part) & tiles_of(pair.whole):
            join(pair.part, pair.whole)
    # A tile may show parts of an object without what connects them: each of them is covered by a mask of another tile.
    for part, whole, _, _, cover in sorted(pairs, key=lambda pair: (-pair.cover, *pair[:2])):
        lonely = cover >= _COVERED and views.cut[part] and int(views.numbers[whole]) not in tiles_of(part)
        if lonely and are_apart(part, whole):
            join(part, whole)
    denied = _denied(views, pairs, [groups[first] for first in group_of])
    return [sorted(group) for first, group in groups.items() if first not in denied]


def _denied(views: _Views, pairs: Sequence[_Pair], group_of: Sequence[Sequence[int]]) -> set[int]:
    """Return detections of one tile that another tile, which shows them too, takes for a part of a better object."""

    def rank(row: int) -> tuple[float, int]:
        return max((float(views.scores[each]), -each) for each in group_of[row])

    rivals = sorted(
        (rank(row), row, other)
        for pair in pairs
        if pair.iou >= _RIVALS
        for row, other in (pair[:2], pair[1::-1])
        if len(group_of[row]) == 1 and rank(row) < rank(other) and views.shows(other, row)
    )
    denied: set[int] = set()
    for _, row, other in reversed(rivals):  # what is denied itself denies nothing
        if other not in denied:
            denied.add(row)
    return denied


def _most_certain_first(pairs: Sequence[_Pair], views: _Views) -> list[_Pair]:
    """Sort by IoU; of equal pairs, those without an equal rival in the same two tiles come first, then the larger."""
    found: dict[tuple[int, int], list[float]] = {}  # IoUs of a detection with those of a tile
    for pair in pairs:
        for row, other in (pair[:2], pair[1::-1]):
            found.setdefault((row, int(views.numbers[other])), []).append(pair.iou)

    def order(pair: _Pair) -> tuple[float, ...]:
        rivals = 0.0
        for row, other in (pair[:2], pair[1::-1]):
            first, *others = sorted(found[row, int(views.numbers[other])], reverse=True)
            rivals = max(rivals, first if first > pair.iou else max(others, default=0.0))
        return -pair.iou, rivals, -pair.shared, *sorted(pair[:2])

    return sorted(pairs, key=order)


def _with_unions(objects: Detections, parts: Mapping[int, Detections]) -> Detections:
    """Replace rows by all parts of an object together."""
    height, width = objects.image_size
    boxes, probabilities = objects.boxes.copy(), objects.mask_probabilities.copy()
    edges = list(objects.edges or ())
    side = probabilities.shape[1]
    for row, found in parts.items():
        edges[row] = join_edges(found.edges or ())
        boxes[row] = (*found.boxes[:, :2].min(axis=0), *found.boxes[:, 2:].max(axis=0))
        low, high = np.split(boxes[row].astype(np.float64), 2)
        x, y = (low + (high - low) * (np.arange(side)[:, None] + 0.5) / side).astype(np.int64).T
        places = np.clip(x, 0, width - 1) * height + np.clip(y, 0, height - 1)[:, None]
        probabilities[row] = is_inside(edges[row], places)
    return replace(objects, boxes=boxes, mask_probabilities=probabilities, edges=tuple(edges))
