"""Reading one mask image: its values, and what they can mean."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.mask_components import Bitmap, label_regions
from maskrcnn.data.readers.picture_files import opened_row

Map = npt.NDArray[np.int32]

# The largest value of each mode.
_LARGEST = {"1": 1, "L": 255, "P": 255, "I": 65535, "I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I;16N": 65535}
_COLORS = ("LA", "RGB", "RGBA")
_NOBODY = 255
_VOID_COLOR = 224 << 16 | 224 << 8 | 192  # value 255 in the palette of VOC
_MOST_COLORS = 256
_LOSSY = ("JPEG", "MPO")
_WEBP_HEADER = 4096  # bytes in which a WebP file names its first chunk of pixels


@dataclass(frozen=True)
class MaskMap:
    """A mask image.

    Attributes:
        values: int32 [H, W]: gray values, indices of a palette, or colors as 0xRRGGBB; 0 is background.
        void: bool [H, W], what may be void: the value 255 with 8 bits, or the color of it in the palette of VOC, whose
            value is 0 here.
        binary: Whether there is no other value than 0 and the largest one.
        colored: Whether values are colors.
        gray: Whether it is an image in color that has gray pixels only, whose values may be colors in other masks.
    """

    values: Map
    void: Bitmap
    binary: bool
    colored: bool = False
    gray: bool = False

    def as_colors(self) -> "MaskMap":
        """Return gray values as colors."""
        return replace(self, values=self.values * 0x010101, void=np.zeros_like(self.void), colored=True, gray=False)

    def objects(self) -> Map:
        """Return the values, as object numbers.

        Raises:
            RowError: They are colors, and one has several regions, so that it may be a class instead of an object.
        """
        if self.colored:
            colors = len(np.unique(self.values))
            if colors > _MOST_COLORS:
                raise RowError(
                    "mask-colors",
                    f"the mask has {colors} colors; expected one for each object: is it a photo, or has it smooth "
                    f"edges? mask_values= (--mask-values) says what colors are",
                )
            regions = label_regions(self.values)
            if regions.max() > len(np.unique(self.values[self.values != 0])):
                raise RowError(
                    "mask-colors",
                    "its colors have several regions, so they may be objects or classes: give mask_values= "
                    "(--mask-values), objects, parts or classes",
                )
        return self.values


def read_map(path: Path, size: tuple[int, int], *, palette: bool = False) -> MaskMap:
    """Read a mask image of an image of `size` (height, width); with `palette`, the colors of a palette are the values.

    Raises:
        RowError: It has another size, is damaged, was compressed with loss, or has values without a meaning.
    """
    with opened_row(path, "mask") as image:
        _check_size(image.size[::-1], size)
        if image.format in _LOSSY or (image.format == "WEBP" and _is_lossy_webp(path)):
            raise RowError(
                "mask-lossy",
                f"the mask is a {image.format} file, whose compression changes values: masks need a lossless format, "
                f"such as PNG",
            )
        mode = image.mode
        if palette and mode == "P":
            return _from_colors(image.convert("RGB"))
        if mode in _LARGEST:
            values = np.asarray(image).astype(np.int32)
            if values.min() < 0:
                raise RowError("mask-mode", "the mask has a negative value")
            binary = bool(np.isin(values, (0, _LARGEST[mode])).all())
            return MaskMap(values, (values == _NOBODY) & (mode in ("L", "P")), binary)
        if mode not in _COLORS:
            raise RowError("mask-mode", f"the mask has mode {mode}; expected gray or palette values, or colors")
        return _from_colors(image)


def _from_colors(image: Image.Image) -> MaskMap:
    if image.mode in ("LA", "RGBA"):
        pixels = np.asarray(image.convert("RGBA"))
        if (pixels[pixels[..., 3] == 0] != 0).any() or not np.isin(pixels[..., 3], (0, 255)).all():
            raise RowError("mask-mode", "the mask has transparent pixels that are not black; save it without alpha")
    pixels = np.asarray(image.convert("RGB")).astype(np.int32)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if (red == green).all() and (green == blue).all():
        return MaskMap(red, red == _NOBODY, binary=bool(np.isin(red, (0, 255)).all()), gray=True)
    values: Map = red << 16 | green << 8 | blue
    void = values == _VOID_COLOR
    values[void] = 0
    return MaskMap(values, void, binary=False, colored=True)


def _is_lossy_webp(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(_WEBP_HEADER)
    return b"VP8L" not in header  # the chunk of the format without loss


def _check_size(found: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise RowError, before decoding, if a mask has another size than its image."""
    if found != size:
        message = f"the mask has {found[1]} x {found[0]} pixels, its image {size[1]} x {size[0]}"
        raise RowError("image-size", message)
