"""A color map whose brightness rises evenly, readable in print and by color-blind people."""

import numpy as np
import numpy.typing as npt

# Dark blue over teal to yellow, in even steps.
_STEPS = np.array([(26, 14, 66), (52, 66, 138), (34, 126, 142), (84, 188, 106), (248, 232, 66)], np.float64)


def color_map(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return colors uint8 [..., 3] of values [...], which are clipped to 0 to 1."""
    places = np.linspace(0, 1, len(_STEPS))
    channels = [np.interp(values, places, _STEPS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
