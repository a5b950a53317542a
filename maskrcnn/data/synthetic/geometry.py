"""Exact outlines of the synthetic shapes, at the centres of pixels."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SQUARE, CIRCLE, TRIANGLE = 1, 2, 3


class Shape(NamedTuple):
    """A shape on the pixels around it, some of which may be outside the picture.

    Attributes:
        coverage: float32 [h, w], share of each pixel that it covers; differs from 0 and 1 on the outline only.
        inside: bool [h, w], whether the centre of the pixel is inside.
        origin: (y, x) of the first pixel, in picture pixels.
    """

    coverage: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]
    origin: tuple[int, int]

    def clip(self, size: tuple[int, int]) -> "Shape":
        """The part inside a picture of (height, width)."""
        (y, x), (rows, columns) = self.origin, self.inside.shape
        part = np.s_[max(-y, 0) : max(min(rows, size[0] - y), 0), max(-x, 0) : max(min(columns, size[1] - x), 0)]
        return Shape(self.coverage[part], self.inside[part], (max(y, 0), max(x, 0)))

    @property
    def window(self) -> tuple[slice, slice]:
        """Its place in the picture, once clipped."""
        (y, x), (rows, columns) = self.origin, self.inside.shape
        return slice(y, y + rows), slice(x, x + columns)


def draw_shape(class_id: int, side: float, center: npt.NDArray[np.float64], rng: np.random.Generator) -> Shape:
    """Draw one shape, upright half of the time, else turned at random.

    Args:
        class_id: `SQUARE`, `CIRCLE` or `TRIANGLE`.
        side: Of the square, of the base of the triangle; diameter of the circle; in pixels.
        center: float64 [2], y and x of the centre of mass in picture pixels; pixel i has its centre at i + 0.5.
        rng: Source of the turn and of the height of a triangle.

    Returns:
        The whole shape, also what lies outside the picture.
    """
    corners = _corners(class_id, side, rng)
    reach = side / 2 if class_id == CIRCLE else float(np.hypot(*corners.T).max())
    first = np.floor(center - reach - 1).astype(int)
    last = np.ceil(center + reach + 1).astype(int)
    y = (np.arange(first[0], last[0]) + 0.5 - center[0]).astype(np.float32)[:, None]
    x = (np.arange(first[1], last[1]) + 0.5 - center[1]).astype(np.float32)
    if class_id == CIRCLE:
        distance = np.hypot(y, x) - np.float32(side / 2)
    else:
        # How far a pixel is beyond the line of each edge: it is in a convex shape if it is beyond none of them.
        edges = np.roll(corners, -1, axis=0) - corners
        normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.hypot(*edges.T)[:, None]
        offsets = (normals * corners).sum(axis=1)
        lines = np.column_stack([normals, offsets]).astype(np.float32)
        distance = np.maximum.reduce([y * down + x * right - offset for down, right, offset in lines])
    coverage = np.clip(0.5 - distance, 0, 1, dtype=np.float32)
    return Shape(coverage, distance < 0, (int(first[0]), int(first[1])))


def _corners(class_id: int, side: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Corners (y, x) about the centre of mass, clockwise in the picture: the normals above then point outwards."""
    if class_id == TRIANGLE:
        height = side * rng.uniform(0.75, 1.1)
        corners = np.array([[-2 * height / 3, 0], [height / 3, side / 2], [height / 3, -side / 2]])
    else:
        corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * side / 2
    angle = 0.0 if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return corners @ turn.T
