"""An image through a predictor, tile by tile."""

from collections.abc import Callable
from contextlib import closing
from typing import Protocol

from runtime.detections import Detections
from runtime.pictures.letterbox import Letterbox, Pixels, ResizePolicy
from runtime.pictures.pixels import PixelPolicy
from runtime.pictures.read import ImageSource, Picture, open_picture
from runtime.steps import PredictorSteps
from runtime.stream import Outputs, Run, Work, stream_each
from runtime.tiles.merge import Parts
from runtime.tiles.tiling import Tile, Tiling, cut, size_of


class StoppedError(Exception):
    """The tiles of an image were not all predicted."""


class TiledSteps(PredictorSteps, Protocol):
    """A predictor that says how it reads images."""

    @property
    def image_channels(self) -> int:
        """Channels of an image."""

    @property
    def resize(self) -> ResizePolicy:
        """How an image becomes the network's input."""

    @property
    def max_pixels(self) -> int:
        """Most pixels of an image."""

    @property
    def pixels(self) -> PixelPolicy:
        """How samples become channels."""


def open_for(steps: TiledSteps, image: ImageSource) -> Picture:
    """Read an image as a predictor does: tiles are cut out of what that gives, so depth and colors are the whole's."""
    return open_picture(image, steps.image_channels, steps.max_pixels, steps.pixels)


def predict_tiles(
    steps: PredictorSteps,
    picture: Picture,
    tiling: Tiling,
    batch_size: int = 1,
    run: Run | None = None,
    stopped: Callable[[], bool] = lambda: False,
    told: Callable[[int, int], None] = lambda _done, _total: None,
) -> Detections:
    """Return the objects of an image.

    The next tiles are cut and the last results merged while the engine works. An image of one tile is predicted as
    without tiles.

    Args:
        steps: The predictor.
        picture: From `open_for`.
        tiling: Where the tiles are.
        batch_size: Most tiles in a batch.
        run: Takes the place of that of `steps`.
        stopped: Asked before each tile and each batch.
        told: Called with the number of tiles that are done, and of all.

    Raises:
        StoppedError: After a stop.
        Exception: What the steps raise.
    """
    size = size_of(picture)
    tiles = tiling.tiles(size)

    def prepare(tile: Tile) -> tuple[Letterbox, Pixels]:
        return steps.prepare(picture if len(tiles) == 1 else cut(picture, tile))

    def finish(outputs: Outputs, letterbox: Letterbox) -> Detections | Exception:
        return steps.finish(outputs, letterbox)

    parts = Parts(size)
    work: Work[Tile, Detections | Exception] = Work(
        prepare, run or steps.run, finish, batch_size, 3 * batch_size, stopped
    )
    done = 0
    with closing(stream_each(work, tiles)) as results:
        for tile, found in results:
            if isinstance(found, Exception):
                raise found
            if len(tiles) == 1:
                return found
            parts.add(tile, found)
            done += 1
            told(done, len(tiles))
    if done < len(tiles):
        raise StoppedError
    return parts.merged()
