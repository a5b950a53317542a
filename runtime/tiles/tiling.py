"""Where the tiles of an image are, and how they are cut out of it."""

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.arguments import count, real
from runtime.errors import InputError
from runtime.pictures.letterbox import LONGEST_SIDE, ResizePolicy, plan_letterbox
from runtime.pictures.read import Picture

TILE, OVERLAP = 1024, 0.2
SMALLEST_TILE, LARGEST_OVERLAP = 64, 0.9
_LARGEST_INPUT = LONGEST_SIDE // 64 * 64  # of a network, whatever it divides sides by
_MOST_ENLARGED = 8  # times; beyond that, a network sees nothing but blur


class Tile(NamedTuple):
    """A rectangle of the image, in whole image pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Tiling:
    """Square tiles that overlap.

    Attributes:
        tile: side of a tile in image pixels.
        overlap: share of the side that neighbors have in common at least.

    Raises:
        InputError: a field has the wrong type or range.
    """

    tile: int = TILE
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        expected = f"an integer of at least {SMALLEST_TILE}, the side of a tile in pixels"
        object.__setattr__(self, "tile", count("tile", self.tile, SMALLEST_TILE, expected=expected))
        object.__setattr__(
            self, "overlap", real("overlap", self.overlap, 0, LARGEST_OVERLAP, f"0 to {LARGEST_OVERLAP}, of the tile")
        )

    def check(self, resize: ResizePolicy) -> None:
        """Raise InputError if a model cannot use tiles of this size, or would see little more than blur."""
        if resize.mode == "none" and self.tile % resize.size_multiple:
            raise InputError(
                f"tile is {self.tile}, and this model does not resize: give a multiple of {resize.size_multiple}"
            )
        side = min(self.tile, _LARGEST_INPUT)
        scale = plan_letterbox((side, side), resize).scale
        if scale > _MOST_ENLARGED:
            least = -(-round(side * scale) // _MOST_ENLARGED)
            raise InputError(
                f"tile is {self.tile}, which this model would enlarge {scale:.3g} times: give at least {least}, best "
                "the size of its training images"
            )

    def tiles(self, image_size: tuple[int, int]) -> list[Tile]:
        """Return the tiles of an image of a size (height, width), by rows.

        The last ones of rows and columns are moved into the image. A side shorter than a tile has one.
        """
        height, width = image_size
        return [
            Tile(top, left, min(top + self.tile, height), min(left + self.tile, width))
            for top in self._starts(height)
            for left in self._starts(width)
        ]

    def _starts(self, side: int) -> list[int]:
        last, step = max(0, side - self.tile), max(1, self.tile - round(self.tile * self.overlap))
        return [*range(0, last, step), last]

    def checksums(self, picture: Picture) -> npt.NDArray[np.uint8]:
        """Return the checksum of each tile: what a `RememberedImage` compares of an image that is in no one array."""
        sums = [zlib.crc32(cut(picture, tile).data) for tile in self.tiles(size_of(picture))]
        return np.array([*size_of(picture), *sums], np.uint64).view(np.uint8)


def size_of(picture: Picture) -> tuple[int, int]:
    """Return the (height, width) of an image."""
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.size[::-1]
    return int(height), int(width)


def cut(picture: Picture, tile: Tile) -> npt.NDArray[np.uint8]:
    """Copy a tile out of an image: uint8 [h, w, C]."""
    top, left, bottom, right = tile
    if isinstance(picture, np.ndarray):
        return picture[top:bottom, left:right].copy()
    part = Image.new(picture.mode, (right - left, bottom - top), None)
    part.paste(picture, (-left, -top))  # `Image.crop` would check the process-wide limit of pixels
    return np.asarray(part).reshape(bottom - top, right - left, -1)
