"""Pictures of many sizes, cut and scaled from the demo picture so that they give detections."""

import numpy as np
from PIL import Image

from export.verify.pictures import LetterboxedPicture
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox

# Height, width: one pixel, thin, tall, odd, square, exact multiples of 64, larger and smaller than the network's input.
SIZES = (
    (1, 1), (2, 3), (37, 501), (3000, 200), (200, 3000), (64, 64), (63, 65), (127, 129), (320, 320), (256, 256),
    (480, 640), (640, 480), (333, 777), (1, 400), (400, 1), (17, 23), (720, 1280), (99, 100), (1024, 768), (31, 1000),
    (512, 512), (450, 451), (250, 1999), (601, 599), (8, 8), (5, 130), (700, 50), (128, 384), (900, 900), (360, 480),
)  # fmt: skip


def picture_of(size, source):
    """A different part of `source` for every size, scaled to it."""
    height, width = size
    shift = (7 * height + 13 * width) % 90
    part = Image.fromarray(source[shift : shift + 250, shift : shift + 330])
    return np.asarray(part.resize((width, height), Image.Resampling.BICUBIC))


def letterboxed(size, source, policy: ResizePolicy):
    """The same as the graph takes it."""
    image = picture_of(size, source)
    letterbox = plan_letterbox(size, policy)
    return LetterboxedPicture(f"{size[0]} x {size[1]}", letterbox.apply(image), letterbox.window)


def raw(size, source):
    """A picture that fills an input of `size` (multiples of 64) without padding."""
    return LetterboxedPicture(f"{size[0]} x {size[1]} unpadded", picture_of(size, source), (0, 0, *size))
