"""Numbers as colors whose brightness rises evenly: read the same in gray, on paper, and by the color-blind."""

import numpy as np
import numpy.typing as npt

# From dark blue over teal to yellow, at even steps; in between colors are mixed.
_STEPS = np.array([(26, 14, 66), (52, 66, 138), (34, 126, 142), (84, 188, 106), (248, 232, 66)], np.float64)


def color_map(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Colors uint8 [..., 3] of values 0 to 1, [...]; what lies outside is cut off."""
    places = np.linspace(0, 1, len(_STEPS))
    channels = [np.interp(values, places, _STEPS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
