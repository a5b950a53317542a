"""Images to verify on: the user's or bundled ones."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from maskrcnn.demo import demo_picture
from runtime.errors import ImageError
from runtime.pictures.header import PICTURE_SUFFIXES
from runtime.pictures.letterbox import Pixels, ResizePolicy, plan_letterbox
from runtime.pictures.pixels import PLAIN, PixelPolicy
from runtime.pictures.read import read_image

MAX_PICTURES = 8  # each costs several runs of both models


@dataclass(frozen=True)
class LetterboxedPicture:
    """An image as the graph takes it.

    Attributes:
        name: Name in the verdict.
        image: [H, W, C], as `Letterbox.apply` makes it.
        window: y1, x1, y2, x2 of the image inside the padding, in input pixels.
    """

    name: str
    image: Pixels
    window: tuple[int, int, int, int]


def verification_pictures(
    folder: str | Path | None, channels: int, resize: ResizePolicy, pixels: PixelPolicy = PLAIN
) -> list[LetterboxedPicture]:
    """Return `whole_pictures`, letterboxed."""
    pictures = []
    for name, image in whole_pictures(folder, channels, pixels):
        if resize.mode == "none":
            image = image[: max(64, image.shape[0] // 64 * 64), : max(64, image.shape[1] // 64 * 64)]  # noqa: PLW2901
        letterbox = plan_letterbox((image.shape[0], image.shape[1]), resize)
        pictures.append(LetterboxedPicture(name, letterbox.apply(image), letterbox.window))
    return pictures


def whole_pictures(
    folder: str | Path | None, channels: int, pixels: PixelPolicy = PLAIN
) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Return names and images: the first `MAX_PICTURES` of a folder by name, or the bundled ones."""
    if folder is None:
        return _bundled(channels)
    paths = pictures_of_folder(folder)[:MAX_PICTURES]
    return [(path.name, read_image(path, channels, pixels=pixels)) for path in paths]


def pictures_of_folder(folder: str | Path) -> list[Path]:
    """Return the image files of a folder, sorted by name.

    Raises:
        ImageError: The path is not a folder, or the folder has no image files.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):  # noqa: PTH112  (False, not an error, for a name too long)
        raise ImageError(f"{folder} is not a folder: give a folder with images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise ImageError(f"{folder} has no images: expected files ending in {', '.join(PICTURE_SUFFIXES)}")
    return paths


def _bundled(channels: int) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Return the demo image, a portrait cut and a strip: two letterbox shapes, odd sides."""
    picture = demo_picture()
    if channels != picture.shape[2]:
        picture = np.ascontiguousarray(picture[..., np.arange(channels) % picture.shape[2]])
    height, width = picture.shape[:2]
    portrait = picture[:, width // 4 : width // 4 + height // 2 | 1]
    strip = picture[height // 3 : height // 3 + 97]
    return [("demo image", picture), ("portrait cut", portrait), ("strip", strip)]
