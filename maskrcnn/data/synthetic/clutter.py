"""Backgrounds of the synthetic images, which a detector must learn to ignore.

Everything here is soft or thin and within `SPREAD` gray levels of one color, so that it cannot be mistaken for a shape.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Pixels = npt.NDArray[np.float32]

# Largest distance of a channel from the base color, before noise.
SPREAD = 40


def clutter(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Draw a gradient with faint blobs, thin lines and a texture: float32 [height, width, 3], 0 to 255."""
    height, width = size
    base = rng.integers(20, 236, 3)
    # Gradient and blobs have no detail: drawing them at a quarter of the size takes a tenth of the time.
    canvas = _gradient(rng, base).resize((-(-width // 4), -(-height // 4)), Image.Resampling.BICUBIC)
    _blobs(rng, canvas, base)
    canvas = canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.5, 4.0))))
    canvas = canvas.resize((width, height), Image.Resampling.BILINEAR)
    _lines(rng, canvas, base)
    pixels = np.asarray(canvas, np.float32)
    return np.clip(pixels + _texture(rng, size)[:, :, None], 0, 255, dtype=np.float32)


def sensor_noise(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Return Gaussian noise of random strength, float32 [height, width, 3], for shapes and background alike."""
    noise = rng.standard_normal((*size, 3), np.float32)
    noise *= np.float32(rng.uniform(0, 6))
    return noise


def _near(rng: np.random.Generator, base: npt.NDArray[np.int64], reach: int) -> tuple[int, int, int]:
    red, green, blue = np.clip(base + rng.integers(-reach, reach + 1, 3), 0, 255).tolist()
    return red, green, blue


def _gradient(rng: np.random.Generator, base: npt.NDArray[np.int64]) -> Image.Image:
    rows, columns = rng.integers(2, 5, 2)
    corners = np.clip(base + rng.integers(-30, 31, (rows, columns, 3)), 0, 255)
    return Image.fromarray(corners.astype(np.uint8))


def _blobs(rng: np.random.Generator, canvas: Image.Image, base: npt.NDArray[np.int64]) -> None:
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 7)):
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        across, down = rng.uniform(2, 12, 2)
        pen.ellipse((x - across, y - down, x + across, y + down), fill=_near(rng, base, SPREAD))


def _lines(rng: np.random.Generator, canvas: Image.Image, base: npt.NDArray[np.int64]) -> None:
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 9)):
        ends = rng.uniform(0, 1, (2, 2)) * canvas.size
        width = int(rng.integers(1, 3))
        pen.line([(float(x), float(y)) for x, y in ends], fill=_near(rng, base, SPREAD), width=width)


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> Pixels:
    """Return gray grain of random coarseness, float32 [height, width]."""
    height, width = size
    cell = int(rng.integers(3, 13))
    grain = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2)).astype(np.float32)
    fine = Image.fromarray(grain).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(fine) * np.float32(rng.uniform(0, 12))
