"""An image and the input of the network that is made of it, without TensorFlow."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.model import Config
from runtime.pictures.letterbox import Letterbox, Pixels
from runtime.pictures.read import read_image


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image as it was read and as the network gets it.

    Attributes:
        picture: uint8 [H, W, 3], the image as it was read.
        letterbox: Where the image lies in the input.
        image: [h, w, C], the input of the network.
    """

    config: Config
    picture: npt.NDArray[np.uint8]
    letterbox: Letterbox
    image: Pixels

    @property
    def shown_input(self) -> npt.NDArray[np.uint8]:
        """The input as RGB uint8 [h, w, 3]; of more than three channels, the first three."""
        return shown(self.image)


def shown(picture: Pixels) -> npt.NDArray[np.uint8]:
    """Convert an image or input of any number of channels to RGB; of more than three, the first three are used."""
    pixels = picture if picture.dtype == np.uint8 else np.rint(picture).astype(np.uint8)
    return read_image(np.ascontiguousarray(pixels[..., : 3 if pixels.shape[2] >= 3 else 1]))
