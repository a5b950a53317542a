"""Exact outlines of the synthetic shapes, evaluated at pixel centers."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SQUARE, CIRCLE, TRIANGLE = 1, 2, 3


class Shape(NamedTuple):
    """A shape on a grid of pixels, some of which may be outside the image.

    Attributes:
        coverage: float32 [h, w], covered fraction of each pixel; between 0 and 1 only on the outline.
        inside: bool [h, w], whether the center of the pixel is inside.
        origin: (y, x) of the first pixel, in image pixels.
    """

    coverage: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]
    origin: tuple[int, int]

    def clip(self, size: tuple[int, int]) -> "Shape":
        """Return the part inside an image of `size` (height, width)."""
        (y, x), (rows, columns) = self.origin, self.inside.shape
        part = np.s_[max(-y, 0) : max(min(rows, size[0] - y), 0), max(-x, 0) : max(min(columns, size[1] - x), 0)]
        return Shape(self.coverage[part], self.inside[part], (max(y, 0), max(x, 0)))

    @property
    def window(self) -> tuple[slice, slice]:
        """Slices of the image that a clipped shape covers."""
        (y, x), (rows, columns) = self.origin, self.inside.shape
        return slice(y, y + rows), slice(x, x + columns)


def draw_shape(class_id: int, side: float, center: npt.NDArray[np.float64], rng: np.random.Generator) -> Shape:
    """Draw a whole shape, upright half of the time, otherwise rotated at random.

    Args:
        class_id: `SQUARE`, `CIRCLE` or `TRIANGLE`.
        side: Side of the square, base of the triangle or diameter of the circle, in pixels.
        center: float64 [2], y and x of the center of mass in image pixels; pixel i has its center at i + 0.5.
        rng: Determines the rotation and the height of a triangle.
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
        # Signed distance from the line of each edge: a pixel is inside a convex shape if none is positive.
        edges = np.roll(corners, -1, axis=0) - corners
        normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1) / np.hypot(*edges.T)[:, None]
        offsets = (normals * corners).sum(axis=1)
        lines = np.column_stack([normals, offsets]).astype(np.float32)
        distance = np.maximum.reduce([y * down + x * right - offset for down, right, offset in lines])
    coverage = np.clip(0.5 - distance, 0, 1, dtype=np.float32)
    return Shape(coverage, distance < 0, (int(first[0]), int(first[1])))


def _corners(class_id: int, side: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return corners (y, x) relative to the center of mass, clockwise in the image, so that normals point outward."""
    if class_id == TRIANGLE:
        height = side * rng.uniform(0.75, 1.1)
        corners = np.array([[-2 * height / 3, 0], [height / 3, side / 2], [height / 3, -side / 2]])
    else:
        corners = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * side / 2
    angle = 0.0 if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return corners @ turn.T
