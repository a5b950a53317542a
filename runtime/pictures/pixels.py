"""The pixel policy of a model: how samples of more than 8 bits, and more than three bands, become its input."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.arguments import shown
from runtime.errors import ImageError, InputError

Samples = npt.NDArray[Any]

_MOST_BANDS = 1000
# With fewer of the 256 levels in use, most of what the sensor gives is lost, and the log says so.
_FEW_LEVELS = 128
_ROWS = 256  # that are scaled at a time, in floats


@dataclass(frozen=True)
class PixelPolicy:
    """How the samples of images become 8-bit channels.

    Attributes:
        value_range: (low, high), the values that become 0 and 255; what is outside becomes 0 or 255. It applies to
            samples of more than 8 bits, in files and arrays; 8-bit images stay as they are. None: 16-bit files keep
            their high byte, and other deep samples are refused.
        bands: Which bands of a file are the channels, counted from 1. In a TIFF file with one band per page, they are
            pages. Arrays with as many channels as the model are used as they are. None: all bands.

    Raises:
        InputError: A field has the wrong type or range.
    """

    value_range: tuple[float, ...] | None = None
    bands: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            values = getattr(self, name)
            if values is None:
                continue
            numbers: Any = values if isinstance(values, tuple | list) else (None,)
            if not all(
                isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 1e30 for value in numbers
            ):
                raise InputError(f"{name} is {shown(values)}; {_EXPECTED[name]}")
            object.__setattr__(
                self, name, tuple(value.item() if isinstance(value, np.generic) else value for value in numbers)
            )
        ends: tuple[Any, ...] | None = self.value_range
        if ends is not None and not (len(ends) == 2 and ends[0] < ends[1]):
            raise InputError(f"value_range is {shown(self.value_range)}; {_EXPECTED['value_range']}")
        if self.bands is not None and not (self.bands and all(1 <= band <= _MOST_BANDS for band in self.bands)):
            raise InputError(f"bands is {shown(self.bands)}; {_EXPECTED['bands']}")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, JSON serializable."""
        return {name: None if value is None else list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PixelPolicy":
        """Read the result of `to_dict`; missing fields are None.

        Raises:
            InputError: An unknown key, or a value that the class refuses.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"the pixel policy has unknown keys {shown(unknown)}; expected value_range, bands")
        return cls(**values)

    def replaced(self, value_range: Any = None, bands: Any = None) -> "PixelPolicy":
        """Return the policy with what is not None replaced."""
        return PixelPolicy(
            self.value_range if value_range is None else value_range, self.bands if bands is None else bands
        )


_KINDS: dict[str, Any] = {"value_range": (int, float, np.integer, np.floating), "bands": (int, np.integer)}


def check_bands(policy: PixelPolicy, channels: int) -> None:
    """Raise InputError unless a policy chooses as many bands as a model has channels, or none."""
    if policy.bands is not None and len(policy.bands) != channels:
        raise InputError(f"bands is {shown(policy.bands)}; expected {channels}, the number of channels of the model")


_EXPECTED = {
    "value_range": "expected two finite numbers, such as (0, 4095) for a 12-bit sensor, the lower one first",
    "bands": f"expected band numbers from 1 to {_MOST_BANDS}, such as (4, 3, 2)",
}
PLAIN = PixelPolicy()


def to_uint8(
    samples: Samples, policy: PixelPolicy, name: str, note: Callable[[str], None], bits: int | None = None
) -> npt.NDArray[np.uint8]:
    """Bring samples of any depth to 8 bits.

    Args:
        samples: [H, W, C]; uint8 is returned as it is.
        policy: Its `value_range` decides.
        name: Of the image, for messages.
        note: Is told if few levels remain.
        bits: How many bits of the samples the file uses; None for samples that are no file's.

    Raises:
        ImageError: There is no agreed range, or a sample is not finite.
    """
    if samples.dtype == np.uint8:
        return samples
    if policy.value_range is not None:
        return _scaled(samples, policy.value_range, name)
    low, high = value_limits(samples)
    if bits is None or bits > 16 or samples.dtype.kind != "u":
        raise ImageError(
            f"{name} has samples of type {samples.dtype.name}, from {low:.6g} to {high:.6g}, which have no agreed "
            "range: give the one that becomes 0..255, as in value_range=(0, 4095) or --value-range 0 4095, or convert "
            "them to uint8"
        )
    shift = max(bits - 8, 0)
    note_levels(int(low), int(high), int(low) >> shift, int(high) >> shift, name, note, bits)
    return (samples >> shift).astype(np.uint8)


def note_levels(
    low: int, high: int, first: int, last: int, name: str, note: Callable[[str], None], bits: int = 16
) -> None:
    """Tell which values were found if they become few of the 256 levels, `first` to `last`; one value tells nothing."""
    if low < high and last - first + 1 < _FEW_LEVELS:
        sensor = 2 ** max(high, 1).bit_length() - 1
        note(
            f"{name} has {bits}-bit samples with values from {low} to {high}, which become {first} to {last} of "
            f"0..255: set the range of the sensor, as in value_range=(0, {sensor}) or --value-range 0 {sensor}"
        )


def value_limits(samples: Samples) -> tuple[float, float]:
    """Return the smallest and the largest value; of values that are not finite, NaN."""
    return (samples.min().item(), samples.max().item()) if samples.size else (math.nan, math.nan)


def _scaled(samples: Samples, value_range: tuple[float, ...], name: str) -> npt.NDArray[np.uint8]:
    low, high = value_range
    if samples.dtype.kind not in "iuf":
        raise ImageError(f"{name} has samples of type {samples.dtype.name}; expected numbers")
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise ImageError(f"{name} has values that are not finite; replace them, as with np.nan_to_num(image)")
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:
        table = _levels(np.arange(2**16), low, high)
        return table[samples]
    result = np.empty(samples.shape, np.uint8)
    for top in range(0, len(samples), _ROWS):
        result[top : top + _ROWS] = _levels(samples[top : top + _ROWS], low, high)
    return result


def _levels(values: Samples, low: float, high: float) -> npt.NDArray[np.uint8]:
    share = (np.asarray(values, np.float64) - low) / (high - low)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def choose_bands(samples: Samples, bands: tuple[int, ...], name: str) -> Samples:
    """Return some bands of an image [H, W, C]; raise ImageError if it lacks one."""
    count = samples.shape[2]
    if max(bands) > count:
        raise ImageError(f"{name} has {count} bands; band {max(bands)} was asked for: choose from 1 to {count}")
    return samples[:, :, [band - 1 for band in bands]]
