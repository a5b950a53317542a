"""The resize policy of a model: image to network input, and boxes back to the image.

Frames: *image pixels* belong to the image as read, *input pixels* to the network input. Boxes are (x1, y1, x2, y2) with
exclusive x2, y2. Both directions are defined here, so that they cannot diverge.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.arguments import shown
from runtime.errors import InputError
from runtime.pictures.read import MAX_PIXELS, Picture, picture_pixels
from runtime.pictures.remembered import RememberedImage
from runtime.pictures.resize_float import resize_float
from runtime.pictures.resize_opencv import resize_opencv
from runtime.pictures.resize_pillow import resize_pillow
from runtime.pictures.resize_uint8 import resize_truncated

Pixels = npt.NDArray[np.uint8 | np.float32]

LONGEST_SIDE = 10_000  # pixels; a square of it has as many as the largest image
LARGEST_SCALE = 1000

SHORT_SIDE, LONG_SIDE = 800, 1333  # of mode "short_side", where nothing is said

ResizeMode = Literal["none", "square", "fit64", "pad64", "crop", "short_side"]
_IN_SQUARE = ("square", "fit64")  # modes whose longer side is at most `max_dim`
Resampling = Literal["truncated", "float", "pillow", "opencv"]
_LEFT_OUT = {"left out": True}  # of a file, if the field has its default: older versions do not know it


@dataclass(frozen=True)
class ResizePolicy:
    """How images are brought to the input size of a network.

    Attributes:
        mode: "square": scale, then center on a black square of side `max_dim`. "fit64": scale as for that square, then
            center on the next multiples of 64. "pad64": scale, then center on the next multiples of 64. "crop": scale,
            then cut a square of side `min_dim` (training only). "none": leave the image as it is; the other fields are
            then ignored. "short_side": scale to `short_side` or, if that is less, to `long_side`, then pad on the right
            and at the bottom to the next multiples of 32; for models of torchvision, Detectron2 and MMDetection.
        min_dim: the shorter side is enlarged to at least this many pixels, never reduced; None: left as it is.
        max_dim: side of the square in pixels, which the longer side must not exceed; used only by "square" and "fit64".
        min_scale: smallest scale factor, 2.0 for twice the size; None or 0: no minimum. In these two modes `max_dim`
            takes precedence over it and over `min_dim`.
        short_side: what the shorter side becomes, in pixels; only in mode "short_side", where None is 800.
        long_side: what the longer side may be at most, in pixels; only in mode "short_side", where None is 1333.
        resampling: "truncated": see `runtime.pictures.resize`; for all modes but "short_side", which needs one of the
            others. "float": `runtime.pictures.resize_float`, as in torchvision; the input of the network is then
            float32. "pillow": Pillow's bilinear filter, anti-aliased, as in Detectron2. "opencv":
            `runtime.pictures.resize_opencv`, as in MMDetection. Sides are rounded as there.

    Raises:
        InputError: a field has the wrong type or range, one that the mode needs is missing, or one is not for the mode.
    """

    mode: ResizeMode
    min_dim: int | None = None
    max_dim: int | None = None
    min_scale: float | None = None
    short_side: int | None = field(default=None, metadata=_LEFT_OUT)
    long_side: int | None = field(default=None, metadata=_LEFT_OUT)
    resampling: Resampling = field(default="truncated", metadata=_LEFT_OUT)

    def __post_init__(self) -> None:
        if self.mode not in get_args(ResizeMode):
            raise InputError(f"resize mode is {shown(self.mode)}; expected one of {', '.join(get_args(ResizeMode))}")
        for name in ("min_dim", "max_dim", "short_side", "long_side"):
            value = getattr(self, name)
            if value is not None and not (_is_int(value) and 0 < value <= LONGEST_SIDE):
                raise InputError(
                    f"resize {name} is {value!r:.40}; expected an integer from 1 to {LONGEST_SIDE} or None"
                )
        scale = self.min_scale
        if scale is not None and not ((_is_int(scale) or isinstance(scale, float)) and 0 <= scale <= LARGEST_SCALE):
            raise InputError(f"resize min_scale is {shown(scale)}; expected 0 to {LARGEST_SCALE}, or None")
        if self.mode in _IN_SQUARE and self.max_dim is None:
            raise InputError(f"resize mode {self.mode!r} has no max_dim; give the side of the square in pixels")
        if self.mode == "crop" and self.min_dim is None:
            raise InputError("resize mode 'crop' has no min_dim; give the side of the crop in pixels")
        if self.mode == "pad64" and self.min_dim is not None and self.min_dim % 64:
            raise InputError(f"resize min_dim is {self.min_dim}; mode 'pad64' needs a multiple of 64")
        self._check_resampling()

    def _check_resampling(self) -> None:
        if self.resampling not in get_args(Resampling):
            expected = ", ".join(get_args(Resampling))
            raise InputError(f"resize resampling is {shown(self.resampling)}; expected one of {expected}")
        by_short_side = self.mode == "short_side"
        others = ("min_dim", "max_dim", "min_scale") if by_short_side else ("short_side", "long_side")
        given = [name for name in others if getattr(self, name)]
        if given:
            raise InputError(
                f"resize {given[0]} is {getattr(self, given[0])}; mode {self.mode!r} does not use it: set it to None"
            )
        if by_short_side == (self.resampling == "truncated"):
            expected = "'float', 'pillow' or 'opencv'" if by_short_side else "'truncated'"
            raise InputError(f"resize resampling is {self.resampling!r}; mode {self.mode!r} needs {expected}")
        if by_short_side:
            object.__setattr__(self, "short_side", self.short_side or SHORT_SIDE)
            object.__setattr__(self, "long_side", self.long_side or LONG_SIDE)

    @property
    def size_multiple(self) -> int:
        """What divides the sides of the input: then the levels of the pyramid have whole cells."""
        return 32 if self.mode == "short_side" else 64

    @property
    def image_dtype(self) -> Literal["uint8", "float32"]:
        """The type of the input's values, which are 0 to 255."""
        return "float32" if self.resampling == "float" else "uint8"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON serializable; those of mode "short_side" only in that mode."""
        values = {each.name: (getattr(self, each.name), each) for each in fields(self)}
        return {name: value for name, (value, each) in values.items() if not (each.metadata and value == each.default)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ResizePolicy":
        """Read the result of `to_dict`; missing fields other than "mode" are None.

        Raises:
            InputError: an unknown key, no "mode", or a value that the class refuses.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown or "mode" not in values:
            problem = f"unknown keys {shown(unknown)}" if unknown else "no key 'mode'"
            expected = ", ".join(field.name for field in fields(cls))
            raise InputError(f"the resize policy has {problem}; expected {expected}")
        return cls(**values)


@dataclass(frozen=True)
class Letterbox:
    """Where one image is in the network input; sizes are (height, width). Made by `plan_letterbox`."""

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    input_size: tuple[int, int]
    offset: tuple[int, int]  # (top, left) of the scaled image in input pixels; zero or negative if it is cropped
    scale: float  # as planned; the sides of `resized_size` are rounded
    resampling: Resampling = "truncated"
    remembered: RememberedImage | None = field(default=None, compare=False, repr=False)  # the image itself

    @property
    def window(self) -> tuple[int, int, int, int]:
        """The part of the input that shows the image: (y1, x1, y2, x2) in input pixels."""
        (top, left), (height, width) = self.offset, self.resized_size
        bottom, right = min(top + height, self.input_size[0]), min(left + width, self.input_size[1])
        return max(top, 0), max(left, 0), bottom, right

    def apply(self, image: Picture) -> Pixels:
        """Make the network input of an image: scaled, then padded with 0 or cropped.

        Args:
            image: uint8 [H, W, C], or a PIL image of mode "RGB" or "L", of size `image_size`.

        Returns:
            uint8 [input height, input width, C], or float32 with the resampling "float"; 0 to 255. May share memory
            with `image` if nothing changes.

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
        if self.resampling == "float":
            return self._resized_into(image, resize_float, np.float32)
        if self.resized_size == self.image_size:
            pixels = picture_pixels(image) if isinstance(image, Image.Image) else image
        elif self.resampling == "opencv":
            return self._resized_into(image, resize_opencv, np.uint8)
        else:
            resize = resize_pillow if self.resampling == "pillow" else resize_truncated
            pixels = resize(image, self.resized_size)
        if self.input_size == self.resized_size:
            return pixels
        y1, x1, y2, x2 = self.window
        top, left = self.offset
        canvas = np.zeros((*self.input_size, pixels.shape[2]), np.uint8)
        canvas[y1:y2, x1:x2] = pixels[y1 - top : y2 - top, x1 - left : x2 - left]
        return canvas

    def _resized_into(self, image: Picture, resize: Callable[..., Any], dtype: type) -> Pixels:
        """Resize straight into the upper left part of the input."""
        pixels = picture_pixels(image) if isinstance(image, Image.Image) else image
        height, width = self.resized_size
        canvas: Pixels = np.empty((*self.input_size, pixels.shape[2]), dtype)
        canvas[height:] = 0
        canvas[:height, width:] = 0
        resize(pixels, self.resized_size, canvas[:height, :width])
        return canvas

    def boxes_to_image(self, boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map boxes [N, 4] from input pixels to image pixels: float64 [N, 4], not clipped and not rounded.

        As in matterport, the first and last pixels map to the first and last: with s = 0 for x1, y1 and s = 1 for x2,
        y2, x' = ((x - s) - left) / (resized width - 1) * (image width - 1) + s. An axis that is one pixel long after
        scaling maps in proportion, x' = (x - left) * image width.

        With any resampling but "truncated", x' = x * (image width / resized width), in float32; with "opencv",
        x' = x / (resized width / image width).

        Raises:
            InputError: `boxes` is not [N, 4].
        """
        values = np.asarray(boxes, np.float64)
        if values.ndim != 2 or values.shape[1] != 4:
            raise InputError(f"boxes have shape {list(values.shape)}; expected [N, 4] of x1, y1, x2, y2")
        if self.resampling != "truncated":
            return self._in_proportion(values.astype(np.float32)).astype(np.float64)
        mapped = np.empty_like(values)
        for column, axis, far in ((0, 1, 0), (1, 0, 0), (2, 1, 1), (3, 0, 1)):
            resized, side = self.resized_size[axis], self.image_size[axis]
            if resized > 1:
                mapped[:, column] = (values[:, column] - far - self.offset[axis]) / (resized - 1) * (side - 1) + far
            else:
                mapped[:, column] = (values[:, column] - self.offset[axis]) * side
        return mapped

    def _in_proportion(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        image, resized = (np.array(size[::-1] * 2, np.float64) for size in (self.image_size, self.resized_size))
        if self.resampling == "opencv":
            return np.divide(boxes, (resized / image).astype(np.float32))
        return np.multiply(boxes, (image / resized).astype(np.float32))

    def detected_to_image(
        self, boxes: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Map the boxes [N, 4] of detections to image pixels.

        Returns:
            float32 [N, 4], clipped to the image with the resampling "pillow"; and bool [N], whether each box has an
            area: with "truncated", after rounding to whole pixels.
        """
        mapped = self.boxes_to_image(boxes).astype(np.float32)
        if self.resampling == "pillow":
            np.clip(mapped, 0, np.array(self.image_size[::-1] * 2, np.float32), out=mapped)
        sides = np.rint(mapped) if self.resampling == "truncated" else mapped
        return mapped, np.all(sides[:, 2:] > sides[:, :2], axis=1)


def plan_letterbox(
    image_size: tuple[int, int], policy: ResizePolicy, crop_origin: tuple[int, int] | None = None
) -> Letterbox:
    """Compute how an image of a given size becomes network input.

    Sides are rounded half to even, to at least one pixel: an image of 3000 x 1 scaled to 1024 keeps its only column. If
    the padding is odd, the smaller half comes first. In mode "short_side", sides are rounded as the resampling does it,
    and all padding comes last.

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
    if policy.short_side is not None and policy.long_side is not None:
        scale, resized = _by_short_side(height, width, policy.short_side, policy.long_side, policy.resampling)
    else:
        scale = _scale(image_size, policy)
        # Python's round, as in matterport: half to even.
        resized = (height, width) if scale == 1 else (max(1, round(height * scale)), max(1, round(width * scale)))
    multiple = policy.size_multiple if policy.mode in ("fit64", "pad64", "short_side") else 1
    enlarged = -(-resized[0] // multiple) * multiple, -(-resized[1] // multiple) * multiple
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
    if policy.mode == "short_side":
        return Letterbox((height, width), resized, target, (0, 0), scale, policy.resampling)
    offset = ((target[0] - resized[0]) // 2, (target[1] - resized[1]) // 2)
    return Letterbox((height, width), resized, target, offset, scale)


def _scale(image_size: tuple[int, int], policy: ResizePolicy) -> float:
    if policy.mode == "none":
        return 1.0
    scale = max(1.0, policy.min_dim / min(image_size)) if policy.min_dim else 1.0
    scale = max(scale, policy.min_scale or 0.0)
    longest = max(image_size)
    if policy.mode in _IN_SQUARE and policy.max_dim and round(longest * scale) > policy.max_dim:
        scale = policy.max_dim / longest
    return float(scale)


def _by_short_side(
    height: int, width: int, short_side: int, long_side: int, resampling: Resampling
) -> tuple[float, tuple[int, int]]:
    """Return scale and size; the order of the operations decides about sides whose products are near whole numbers."""
    shorter, longer = min(height, width), max(height, width)
    if resampling == "pillow":  # Detectron2
        scale = short_side / shorter
        sides = (float(short_side), scale * width) if height < width else (scale * height, float(short_side))
        if max(sides) > long_side:
            again = long_side / max(sides)
            scale, sides = scale * again, (sides[0] * again, sides[1] * again)
        rounded = int(sides[0] + 0.5), int(sides[1] + 0.5)
    elif resampling == "opencv":  # MMDetection: either number may be the limit of the longer side
        scale = min(max(short_side, long_side) / longer, min(short_side, long_side) / shorter)
        rounded = int(height * scale + 0.5), int(width * scale + 0.5)
    else:  # torchvision
        scale = min(short_side / shorter, long_side / longer)
        rounded = math.floor(height * scale), math.floor(width * scale)
    return scale, (max(1, rounded[0]), max(1, rounded[1]))


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
