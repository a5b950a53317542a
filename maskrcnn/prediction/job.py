"""What every part of a prediction run shares."""

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from maskrcnn.callbacks import Counted, Told, tell_nothing
from maskrcnn.prediction.output_folder import OutputFolder
from runtime.detections import Detections
from runtime.errors import RuntimeLibraryError
from runtime.output.formats import to_document
from runtime.pictures.letterbox import Letterbox, Pixels
from runtime.pictures.pixels import PLAIN, PixelPolicy
from runtime.pictures.read import MAX_PIXELS, ImageSource
from runtime.steps import PredictorSteps
from runtime.stream import Outputs, Work, stream_each
from runtime.tiles.predict import StoppedError, TiledSteps, open_for, predict_tiles
from runtime.tiles.tiling import Tiling

T = TypeVar("T")
MILLISECONDS = "milliseconds"  # that the network took for an image: a share of its batch


def pixels_of(predictor: PredictorSteps) -> PixelPolicy:
    """Return how a predictor turns samples of images into channels."""
    found: PixelPolicy = getattr(predictor, "pixels", PLAIN)
    return found


@dataclass(frozen=True)
class Job:
    """A run in progress.

    Attributes:
        predictor: `runtime.Predictor` or `CheckpointPredictor`.
        folder: Where results are written.
        run: Digest of the settings.
        classes: Names of the classes to keep; None keeps all.
        views: Kinds of views to draw, see `output_folder.VIEWS`.
        batch_size: Most images that the network runs at a time.
        every: Predict every N-th video frame.
        stopped: Whether the run should end; called in any thread.
        progress: Called with "images", "views" or the name of a video.
        told: Called with each image that is done.
        track: Give detections in videos ids.
        tiling: The tiles of each image and frame; None: they are predicted whole.
    """

    predictor: PredictorSteps
    folder: OutputFolder
    run: str
    classes: tuple[str, ...] | None
    views: tuple[str, ...]
    batch_size: int
    every: int
    stopped: Callable[[], bool]
    progress: Counted
    told: Told = tell_nothing
    track: bool = False
    tiling: Tiling | None = None

    @property
    def max_pixels(self) -> int:
        """Most pixels of an image; larger ones are refused."""
        return int(getattr(self.predictor, "max_pixels", MAX_PIXELS))

    @property
    def pixels(self) -> PixelPolicy:
        """How samples of images become channels."""
        return pixels_of(self.predictor)

    def predict(
        self,
        items: Iterable[T],
        image_of: Callable[[T], ImageSource],
        when_read: Callable[[T], None] = lambda _item: None,
        tiles_told: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Generator[tuple[T, dict[str, Any] | Exception]]:
        """Yield each item, in order, with its detections (see `to_document`) and `MILLISECONDS`, or its error.

        Items are made and their images prepared in one thread, the network runs in a second, and a third encodes masks.
        `when_read` is called with each item whose image was read, or could not be. With `tiling`, one image at a time
        is in memory, and `tiles_told` is called with the number of its tiles that are done, and of all.
        """
        if self.tiling is not None:
            return self._predict_in_tiles(items, image_of, when_read, self.tiling, tiles_told)

        def prepare(item: T) -> tuple[Letterbox, Pixels]:
            try:
                return self.predictor.prepare(image_of(item))
            finally:
                when_read(item)

        work = Work(prepare, self._run, self._finish, self.batch_size, 4 * self.batch_size, self.stopped)
        return stream_each(work, items)

    def _predict_in_tiles(
        self,
        items: Iterable[T],
        image_of: Callable[[T], ImageSource],
        when_read: Callable[[T], None],
        tiling: Tiling,
        told: Callable[[int, int], None],
    ) -> Generator[tuple[T, dict[str, Any] | Exception]]:
        steps, seconds = cast("TiledSteps", self.predictor), 0.0

        def run(pixels: Pixels, windows: npt.NDArray[np.float32]) -> Outputs:
            nonlocal seconds
            begun = time.perf_counter()
            outputs = steps.run(pixels, windows)
            seconds += time.perf_counter() - begun
            return outputs

        for item in items:
            if self.stopped():
                return
            seconds = 0.0
            try:
                try:
                    picture = open_for(steps, image_of(item))
                finally:
                    when_read(item)
                found = predict_tiles(steps, picture, tiling, self.batch_size, run, self.stopped, told)
                result: dict[str, Any] | Exception = self._document(found, 1000 * seconds)
            except StoppedError:
                return
            except (RuntimeLibraryError, OSError, MemoryError) as error:
                result = error
            yield item, result

    def _run(self, pixels: Pixels, windows: npt.NDArray[np.float32]) -> Outputs:
        begun = time.perf_counter()
        outputs = self.predictor.run(pixels, windows)
        each = 1000 * (time.perf_counter() - begun) / len(windows)
        return {**outputs, MILLISECONDS: np.full(len(windows), each)}

    def _finish(self, outputs: Outputs, letterbox: Letterbox) -> dict[str, Any]:
        outputs = dict(outputs)
        milliseconds = float(outputs.pop(MILLISECONDS))
        return self._document(self.predictor.finish(outputs, letterbox), milliseconds)

    def _document(self, found: Detections, milliseconds: float) -> dict[str, Any]:
        if self.classes is not None:
            found = found.filter(classes=self.classes)
        # A checkpoint runs where TensorFlow puts it.
        device = str(getattr(self.predictor, "device", "tensorflow"))
        return to_document(found) | {"device": device, MILLISECONDS: milliseconds}
