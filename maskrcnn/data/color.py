"""Color augmentation: brightness, contrast, saturation, blur, noise."""

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.ImageFilter import GaussianBlur

from maskrcnn.configuration.training import AugmentationConfig
from maskrcnn.data.records import Image

Values = npt.NDArray[np.float32]

# Luminance of an RGB color, ITU-R BT.601.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def change_colors(image: Image, config: AugmentationConfig, rng: np.random.Generator) -> Image:
    """Change brightness, contrast and saturation, then blur, then add noise; strengths are drawn uniformly.

    Saturation applies to three channels only. Settings that are 0 draw no random numbers. `image`, uint8 [H, W, C], is
    not changed; it is returned as it is if nothing is enabled.
    """
    saturated = config.saturation > 0 and image.shape[2] == 3
    if config.brightness or config.contrast or saturated:
        values = image.astype(np.float32)
        if config.brightness:
            values *= _factor(config.brightness, rng)
        if config.contrast:
            _scale_distance(values, mean_color(values), _factor(config.contrast, rng))
        if saturated:
            _scale_distance(values, (values @ _LUMINANCE)[:, :, None], _factor(config.saturation, rng))
        image = _to_bytes(values)
    if config.blur:
        image = _blur(image, float(rng.uniform(0, config.blur)))
    if config.noise:
        noise = rng.standard_normal(image.shape, np.float32)
        noise *= np.float32(rng.uniform(0, config.noise))
        noise += image
        image = _to_bytes(noise)
    return image


def mean_color(image: npt.NDArray[np.uint8] | Values) -> Values:
    """Return the mean of each channel of [H, W, C], float32 [C]."""
    # One axis at a time: NumPy takes ten times as long for both at once.
    columns = image.sum(axis=0, dtype=np.float32) / len(image)
    return np.asarray(columns.mean(axis=0, dtype=np.float64), np.float32)


def _factor(reach: float, rng: np.random.Generator) -> np.float32:
    return np.float32(rng.uniform(1 - reach, 1 + reach))


def _scale_distance(values: Values, center: Values, factor: np.float32) -> None:
    values *= factor
    values += (1 - factor) * center


def _to_bytes(values: Values) -> Image:
    np.rint(values, out=values)
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


def _blur(image: Image, sigma: float) -> Image:
    """Apply Pillow's Gaussian blur, which repeats the edge pixels."""
    blur = GaussianBlur(sigma)
    if image.shape[2] == 3:
        return np.asarray(PIL.Image.fromarray(image).filter(blur))
    channels = [np.asarray(PIL.Image.fromarray(image[:, :, c]).filter(blur)) for c in range(image.shape[2])]
    return np.stack(channels, axis=2)
