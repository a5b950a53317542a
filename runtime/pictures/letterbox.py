"""The resize policy of a model: image to network input, and boxes back to the image.

Frames: *image pixels* belong to the image as read, *input pixels* to the network input. Boxes are (x1, y1, x2, y2) with
exclusive x2, y2. Both directions are defined here, so that they cannot diverge.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.arguments import shown
from runtime.errors import InputError
from runtime.pictures.read import MAX_PIXELS, Picture, picture_pixels
from runtime.pictures.resize_uint8 import resize_truncated

LONGEST_SIDE = 10_000  # pixels; a square of it has as many as the largest image
LARGEST_SCALE = 1000

ResizeMode = Literal["none", "square", "pad64", "crop"]


@dataclass(frozen=True)
class ResizePolicy:
    """How images are brought to the input size of a network.

    Attributes:
        mode: "square": scale, then center on a black square of side `max_dim`. "pad64": scale, then center on the next
            multiples of 64. "crop": scale, then cut a square of side `min_dim` (training only). "none": leave the image
            as it is; the other fields are then ignored.
        min_dim: the shorter side is enlarged to at least this many pixels, never reduced; None: left as it is.
        max_dim: side of the square in pixels, which the longer side must not exceed; used only by "square".
        min_scale: smallest scale factor, 2.0 for twice the size; None or 0: no minimum. In "square" mode `max_dim`
            takes precedence over it and over `min_dim`.

    Raises:
        InputError: a field has the wrong type or range, or one that the mode needs is missing.
    """

    mode: ResizeMode
    min_dim: int | None = None
    max_dim: int | None = None
    min_scale: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(ResizeMode):
            raise InputError(f"resize mode is {shown(self.mode)}; expected one of {', '.join(get_args(ResizeMode))}")
        for name in ("min_dim", "max_dim"):
            value = getattr(self, name)
            if value is not None and not (_is_int(value) and 0 < value <= LONGEST_SIDE):
                raise InputError(
                    f"resize {name} is {value!r:.40}; expected an integer from 1 to {LONGEST_SIDE} or None"
                )
        scale = self.min_scale
        if scale is not None and not ((_is_int(scale) or isinstance(scale, float)) and 0 <= scale <= LARGEST_SCALE):
            raise InputError(f"resize min_scale is {shown(scale)}; expected 0 to {LARGEST_SCALE}, or None")
        if self.mode == "square" and self.max_dim is None:
            raise InputError("resize mode 'square' has no max_dim; give the side of the square in pixels")
        if self.mode == "crop" and self.min_dim is None:
            raise InputError("resize mode 'crop' has no min_dim; give the side of the crop in pixels")
        if self.mode == "pad64" and self.min_dim is not None and self.min_dim % 64:
            raise InputError(f"resize min_dim is {self.min_dim}; mode 'pad64' needs a multiple of 64")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON serializable."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ResizePolicy":
        """Read the result of `to_dict`; missing fields other than "mode" are None.

        Raises:
            InputError: an unknown key, no "mode", or a value that the class refuses.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or "mode" not in values:
            problem = f"unknown keys {shown(unknown)}" if unknown else "no key 'mode'"
            raise InputError(f"the resize policy has {problem}; expected mode, min_dim, max_dim, min_scale")
        return cls(**values)


@dataclass(frozen=True)
class Letterbox:
    """Where one image is in the network input; sizes are (height, width). Made by `plan_letterbox`."""

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    input_size: tuple[int, int]
    offset: tuple[int, int]  # (top, left) of the scaled image in input pixels; zero or negative if it is cropped
    scale: float  # as planned; the sides of `resized_size` are rounded

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The part of the input that shows the image: (y1, x1, y2, x2) in input pixels."""
        (top, left), (height, width) = self.offset, self.resized_size
        bottom, right = min(top + height, self.input_size[0]), min(left + width, self.input_size[1])
        return max(top, 0), max(left, 0), bottom, right

    def apply(self, image: Picture) -> npt.NDArray[np.uint8]:
        """Make the network input of an image: scaled (values truncated), then padded with 0 or cropped.

        Args:
            image: uint8 [H, W, C], or a PIL image of mode "RGB" or "L", of size `image_size`.

        Returns:
            uint8 [input height, input width, C]; may share memory with `image` if nothing changes.

        Raises:
            InputError: `image` has another size, mode or dtype.
        """
        if isinstance(image, Image.Image):
            given, fits, size = (
                f"a PIL image of mode {image.mode}, size {image.size}",
                image.mode in ("RGB", "L"),
                image.size[::-1],
            )
        else:
            given, fits = f"{image.dtype} {list(image.shape)}", image.dtype == np.uint8 and image.ndim == 3
            size = image.shape[:2]
        if not fits or size != self.image_size:
            raise InputError(
                f"image is {given}; this letterbox was planned for "
                f"uint8 [{self.image_size[0]}, {self.image_size[1]}, C]"
            )
        if self.resized_size != self.image_size:
            pixels = resize_truncated(image, self.resized_size)
        else:
            pixels = picture_pixels(image) if isinstance(image, Image.Image) else image
        if self.input_size == self.resized_size:
            return pixels
        y1, x1, y2, x2 = self.window
        top, left = self.offset
        canvas = np.zeros((*self.input_size, pixels.shape[2]), np.uint8)
        canvas[y1:y2, x1:x2] = pixels[y1 - top : y2 - top, x1 - left : x2 - left]
        return canvas

    def boxes_to_image(self, boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map boxes [N, 4] from input pixels to image pixels: float64 [N, 4], not clipped and not rounded.

        As in matterport, the first and last pixels map to the first and last: with s = 0 for x1, y1 and s = 1 for x2,
        y2, x' = ((x - s) - left) / (resized width - 1) * (image width - 1) + s. An axis that is one pixel long after
        scaling maps in proportion, x' = (x - left) * image width.

        Raises:
            InputError: `boxes` is not [N, 4].
        """
        values = np.asarray(boxes, np.float64)
        if values.ndim != 2 or values.shape[1] != 4:
            raise InputError(f"boxes have shape {list(values.shape)}; expected [N, 4] of x1, y1, x2, y2")
        mapped = np.empty_like(values)
        for column, axis, far in ((0, 1, 0), (1, 0, 0), (2, 1, 1), (3, 0, 1)):
            resized, side = self.resized_size[axis], self.image_size[axis]
            if resized > 1:
                mapped[:, column] = (values[:, column] - far - self.offset[axis]) / (resized - 1) * (side - 1) + far
            else:
                mapped[:, column] = (values[:, column] - self.offset[axis]) * side
        return mapped


def plan_letterbox(
    image_size: tuple[int, int], policy: ResizePolicy, crop_origin: tuple[int, int] | None = None
) -> Letterbox:
    """Compute how an image of a given size becomes network input.

    Sides are rounded half to even, to at least one pixel: an image of 3000 x 1 scaled to 1024 keeps its only column. If
    the padding is odd, the smaller half comes first.

    Args:
        image_size: (height, width) in pixels.
        policy: the resize policy of the model.
        crop_origin: (top, left) of the crop in the scaled image; required for mode "crop" and refused for others.

    Raises:
        InputError: a size or origin is out of range, or the input would have more than `MAX_PIXELS` pixels, as when the
            short side of a long, thin image is enlarged to `min_dim`.
    """
    height, width = image_size
    if not (_is_int(height) and _is_int(width) and height > 0 and width > 0):
        raise InputError(f"image_size is {tuple(image_size)}; expected (height, width), positive integers")
    scale = _scale(image_size, policy)
    # Python's round, as in matterport: half to even.
    resized = (height, width) if scale == 1 else (max(1, round(height * scale)), max(1, round(width * scale)))
    enlarged = resized if policy.mode != "pad64" else (-(-resized[0] // 64) * 64, -(-resized[1] // 64) * 64)
    if enlarged[0] * enlarged[1] > MAX_PIXELS:
        raise InputError(
            f"an image of {height} x {width} pixels would be enlarged to {enlarged[0]} x {enlarged[1]} by mode "
            f"{policy.mode!r}; at most {MAX_PIXELS} pixels are allowed: cut it into parts or use mode 'square'"
        )
    if (crop_origin is not None) != (policy.mode == "crop"):
        raise InputError(f"crop_origin is {crop_origin} with resize mode {policy.mode!r}; give it only for mode 'crop'")
    if crop_origin is not None and policy.min_dim is not None:
        return _crop_plan((height, width), resized, policy.min_dim, crop_origin, scale)
    target = enlarged if policy.mode != "square" or policy.max_dim is None else (policy.max_dim, policy.max_dim)
    offset = ((target[0] - resized[0]) // 2, (target[1] - resized[1]) // 2)
    return Letterbox((height, width), resized, target, offset, scale)


def _scale(image_size: tuple[int, int], policy: ResizePolicy) -> float:
    if policy.mode == "none":
        return 1.0
    scale = max(1.0, policy.min_dim / min(image_size)) if policy.min_dim else 1.0
    scale = max(scale, policy.min_scale or 0.0)
    longest = max(image_size)
    if policy.mode == "square" and policy.max_dim and round(longest * scale) > policy.max_dim:
        scale = policy.max_dim / longest
    return float(scale)


def _crop_plan(
    image_size: tuple[int, int], resized: tuple[int, int], side: int, origin: tuple[int, int], scale: float
) -> Letterbox:
    top, left = origin
    if not (0 <= top <= resized[0] - side and 0 <= left <= resized[1] - side):
        raise InputError(
            f"crop_origin is {origin}; a crop of {side} in a scaled image of {resized[0]} x {resized[1]} "
            f"needs 0..{resized[0] - side}, 0..{resized[1] - side}"
        )
    return Letterbox(image_size, resized, (side, side), (-top, -left), scale)


def _is_int(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
