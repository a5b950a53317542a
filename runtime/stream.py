"""Many pictures through a predictor: the next are read, and the last ones finished, while the engine works.

Three threads: one takes pictures from their source, reads them and puts those of one input size together; one runs
the graph; one goes back to the frame of the picture. Each picture has a future, and the caller waits for them in order.
"""

import os
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from os import PathLike
from threading import Semaphore
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from runtime.detections import Detections
from runtime.errors import EngineError, ImageError, InputError
from runtime.pictures.letterbox import Letterbox
from runtime.pictures.read import ImageSource
from runtime.steps import PredictorSteps

OnError = Literal["raise", "yield"]
Result = Detections | ImageError


class _Picture(NamedTuple):
    number: int
    letterbox: Letterbox
    pixels: npt.NDArray[np.uint8]
    result: Future[Result | None]


def check_pictures(images: Iterable[ImageSource], batch_size: int) -> None:
    """Refuse one picture in place of several, and an impossible batch size.

    Raises:
        InputError: `batch_size` is not a positive integer, or `images` is one picture.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}: expected an integer of at least 1")
    given: object = images
    single = isinstance(given, str | bytes | bytearray | PathLike) or not isinstance(given, Iterable)
    if single or (isinstance(given, np.ndarray) and given.ndim != 4):
        raise InputError("images is one picture: give a list of pictures, or an array [B, H, W, C]")


def stream(
    steps: PredictorSteps,
    images: Iterable[ImageSource],
    batch_size: int,
    ahead: int | None,
    *,
    on_error: OnError,
    rles: bool,
) -> Generator[Result]:
    """Predict pictures in order; see `runtime.Predictor.predict_stream`. No thread starts before the first result.

    Raises:
        InputError: An argument is out of range, or `images` is one picture.
    """
    check_pictures(images, batch_size)
    ahead = 3 * batch_size if ahead is None else ahead  # being read, in the engine, being finished
    if not isinstance(ahead, int) or ahead < batch_size:
        raise InputError(f"ahead is {ahead!r}: expected an integer of at least batch_size, {batch_size}")
    if on_error not in get_args(OnError):
        raise InputError(f"on_error is {on_error!r}: expected one of {', '.join(get_args(OnError))}")
    return _results(steps, images, batch_size, ahead, on_error, rles)


def _results(
    steps: PredictorSteps, images: Iterable[ImageSource], batch_size: int, ahead: int, on_error: OnError, rles: bool
) -> Generator[Result]:
    pipeline = _Pipeline(steps, iter(images), batch_size, max(batch_size, ahead - batch_size), on_error, rles)
    pending: deque[Future[Result | None]] = deque()
    try:
        while True:
            pipeline.require_own_process()
            while len(pending) < ahead:
                pending.append(pipeline.request())
            result = pending.popleft().result()
            if result is None:
                return
            yield result
    finally:
        pipeline.close()


class _Pipeline:
    """Reads a picture per request, and sets the future it gave for it.

    `window` is how many pictures, itself among them, are read before a picture waits no longer for others of its size:
    no more than are requested, so that what is waited for always comes.
    """

    def __init__(
        self,
        steps: PredictorSteps,
        source: Iterator[ImageSource],
        batch_size: int,
        window: int,
        on_error: OnError,
        rles: bool,
    ) -> None:
        self._steps, self._source, self._on_error, self._rles = steps, source, on_error, rles
        self._batch_size, self._window = batch_size, window
        self._pools = [ThreadPoolExecutor(1, f"predict-{name}") for name in ("read", "run", "finish")]
        self._reader, self._engine, self._finisher = self._pools
        self._places = Semaphore(2)  # at the engine: of the batch that runs, and of the one to run next
        self._waiting: list[_Picture] = []
        self._number = -1  # of the last picture that was taken from the source
        self._ended = self._closed = False
        self._process = os.getpid()

    def request(self) -> Future[Result | None]:
        """Have the next picture read; its future becomes None if there is none."""
        result: Future[Result | None] = Future()
        self._reader.submit(self._read, result)
        return result

    def require_own_process(self) -> None:
        """Refuse to go on in a child of the process that the threads are in.

        Raises:
            EngineError: It was forked.
        """
        if self._process != os.getpid():
            raise EngineError("this stream was begun before the process was forked: begin another one in the child")

    def close(self) -> None:
        """Finish what each thread has in hand, close the source if it is a generator, and end the threads."""
        self._closed = True
        if self._process != os.getpid():
            return  # threads and source are the parent's
        try:
            source = self._reader.submit(self._close_source)
        except RuntimeError:  # the interpreter is going down, and has ended the threads
            self._close_source()
            return
        for pool in self._pools:  # in this order: a thread hands over to the next one
            pool.shutdown()
        source.result()

    def _close_source(self) -> None:
        if isinstance(self._source, Generator):
            self._source.close()

    def _read(self, result: Future[Result | None]) -> None:
        if self._ended or self._closed:
            result.set_result(None)
            return
        try:
            taken = list(islice(self._source, 1))
            for image in taken:
                self._number += 1
                self._prepare(image, result)
        except BaseException as error:  # noqa: BLE001  (it is raised again where the results are taken)
            self._ended = True
            result.set_exception(error)
        else:
            if not taken:
                self._ended = True
                result.set_result(None)
        self._hand_over()

    def _prepare(self, image: ImageSource, result: Future[Result | None]) -> None:
        try:
            letterbox, pixels = self._steps.prepare(image)
        except ImageError as error:
            if self._on_error == "raise":
                raise
            result.set_result(error)
            return
        if isinstance(image, np.ndarray) and np.may_share_memory(image, pixels):
            pixels = pixels.copy()  # cameras write the next frame into the same array
        self._waiting.append(_Picture(self._number, letterbox, pixels, result))

    def _hand_over(self) -> None:
        """Give the engine each batch that is full, or whose first picture has waited long enough."""
        while self._waiting and not self._closed:
            sizes = Counter(picture.letterbox.input_size for picture in self._waiting)
            ((size, count),) = sizes.most_common(1)
            if count < self._batch_size:
                if not self._ended and self._number - self._waiting[0].number + 1 < self._window:
                    return
                size = self._waiting[0].letterbox.input_size
            batch = [picture for picture in self._waiting if picture.letterbox.input_size == size]
            self._waiting = [picture for picture in self._waiting if picture.letterbox.input_size != size]
            self._places.acquire()
            self._engine.submit(self._run, batch)

    def _run(self, batch: list[_Picture]) -> None:
        try:
            if self._closed:
                return
            images = np.stack([picture.pixels for picture in batch])
            windows = np.array([picture.letterbox.window for picture in batch], np.float32)
            outputs = self._steps.run(images, windows)
        except BaseException as error:  # noqa: BLE001  (as in `_read`)
            for picture in batch:
                picture.result.set_exception(error)
        else:
            self._finisher.submit(self._finish, batch, outputs)
        finally:
            self._places.release()

    def _finish(self, batch: list[_Picture], outputs: Mapping[str, npt.NDArray[Any]]) -> None:
        for row, picture in enumerate(batch):
            try:
                found = self._steps.finish({name: array[row] for name, array in outputs.items()}, picture.letterbox)
                if self._rles:
                    _ = found.rles  # made when first asked for, and kept
            except BaseException as error:  # noqa: BLE001  (as in `_read`)
                picture.result.set_exception(error)
            else:
                picture.result.set_result(found)
