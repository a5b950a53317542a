"""Many images through a predictor: the next ones are read, and the last ones finished, while the engine works.

Three threads: the first takes items from their source, prepares them, and groups those of one input size; the second
runs the engine; the third maps the outputs back to the image. Each item has a future, and the caller waits for the
futures in order.
"""

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import PathLike
from threading import Semaphore
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from runtime.detections import Detections
from runtime.errors import EngineError, ImageError, InputError, RuntimeLibraryError
from runtime.pictures.letterbox import Letterbox
from runtime.pictures.read import ImageSource
from runtime.steps import PredictorSteps

OnError = Literal["raise", "yield"]
Result = Detections | ImageError
Pixels = npt.NDArray[np.uint8]
Outputs = Mapping[str, npt.NDArray[Any]]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Work(Generic[T, R]):
    """What is done with each item.

    Attributes:
        prepare: Makes the letterboxed image of an item; called in the first thread.
        run: Runs the engine on a batch of images and their windows; called in the second thread.
        finish: Makes the result from the outputs of one image, without the batch axis; called in the third thread.
        batch_size: Most items of one run.
        ahead: Most items taken from the source before their results are taken; at least `batch_size`.
        stopped: Asked before each item and each batch, in their threads. Once it returns True no other begins.
    """

    prepare: Callable[[T], tuple[Letterbox, Pixels]]
    run: Callable[[Pixels, npt.NDArray[np.float32]], Outputs]
    finish: Callable[[Outputs, Letterbox], R]
    batch_size: int
    ahead: int
    stopped: Callable[[], bool] = lambda: False


class _Picture(NamedTuple):
    number: int
    item: Any  # None unless results come with their items: a large array need not live longer than its letterbox
    letterbox: Letterbox
    pixels: Pixels
    result: Future[Any]


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
    errors = (ImageError,) if on_error == "yield" else ()
    work = Work(partial(_prepare, steps), steps.run, partial(_finish, steps, rles), batch_size, ahead)
    return _results(work, images, errors, each=False)


def stream_each(work: Work[T, R], items: Iterable[T]) -> Generator[tuple[T, R | Exception]]:
    """Yield each item, in order, with its result or with the error that it alone is to blame for.

    Errors of preparing and finishing belong to their item, unless they are bugs. If the engine fails on a batch, its
    items run again one by one. After a stop, only the items that were in the engine by then are yielded.

    Raises:
        Exception: What `items` raises, after the results of the items before it, and bugs.
    """
    return _results(work, items, (RuntimeLibraryError, OSError, MemoryError), each=True)


def _prepare(steps: PredictorSteps, image: ImageSource) -> tuple[Letterbox, Pixels]:
    letterbox, pixels = steps.prepare(image)
    if isinstance(image, np.ndarray) and np.may_share_memory(image, pixels):
        pixels = pixels.copy()  # cameras write the next frame into the same array
    return letterbox, pixels


def _finish(steps: PredictorSteps, rles: bool, outputs: Outputs, letterbox: Letterbox) -> Detections:
    found = steps.finish(outputs, letterbox)
    if rles:
        _ = found.rles  # made when first asked for, and kept
    return found


def _results(
    work: Work[Any, Any], items: Iterable[Any], errors: tuple[type[Exception], ...], *, each: bool
) -> Generator[Any]:
    pipeline = _Pipeline(work, items, errors, each)
    pending: deque[Future[Any]] = deque()
    ended = False
    try:
        while True:
            pipeline.require_own_process()
            while not ended and len(pending) < work.ahead:
                pending.append(pipeline.request())
            if not pending:
                return
            result = pending.popleft().result()
            if result is None:
                ended = True  # after a stop, there may still be results of other sizes
            else:
                yield result
    finally:
        pipeline.close()


class _Pipeline:
    """Prepares an item per request, and sets the future it gave for it.

    Args:
        work: See `Work`.
        items: Their source.
        errors: Kinds of errors of preparing and finishing that are the result of their item; others end the pipeline.
        each: Whether results come with their items, and errors of the engine belong to single items too.
    """

    def __init__(
        self, work: Work[Any, Any], items: Iterable[Any], errors: tuple[type[Exception], ...], each: bool
    ) -> None:
        self._work, self._source, self._errors, self._each = work, iter(items), errors, each
        # How many items, itself among them, are taken before an item no longer waits for others of its size: no more
        # than are requested, so that a result that is waited for always comes.
        self._window = max(work.batch_size, work.ahead - work.batch_size)
        self._pools = [ThreadPoolExecutor(1, f"predict-{name}") for name in ("read", "run", "finish")]
        self._reader, self._engine, self._finisher = self._pools
        self._places = Semaphore(2)  # at the engine: of the batch that runs, and of the one to run next
        self._waiting: list[_Picture] = []
        self._number = -1  # of the last item that was taken from the source
        self._ended = self._closed = False
        self._process = os.getpid()

    def request(self) -> Future[Any]:
        """Have the next item prepared; its future becomes None if there is none, or if a stop came first."""
        result: Future[Any] = Future()
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

    def _read(self, result: Future[Any]) -> None:
        if self._ended or self._closed:
            result.set_result(None)
            return
        try:
            taken = [] if self._work.stopped() else list(islice(self._source, 1))
            for item in taken:
                self._number += 1
                self._prepare(item, result)
        except BaseException as error:  # noqa: BLE001  (it is raised again where the results are taken)
            self._ended = True
            result.set_exception(error)
        else:
            if not taken:
                self._ended = True
                result.set_result(None)
        self._hand_over()

    def _prepare(self, item: Any, result: Future[Any]) -> None:
        try:
            letterbox, pixels = self._work.prepare(item)
        except self._errors as error:
            result.set_result((item, error) if self._each else error)
        else:
            kept = item if self._each else None
            self._waiting.append(_Picture(self._number, kept, letterbox, pixels, result))

    def _hand_over(self) -> None:
        """Give the engine each batch that is full, or whose first item has waited long enough."""
        while self._waiting and not self._closed:
            sizes = Counter(picture.letterbox.input_size for picture in self._waiting)
            ((size, count),) = sizes.most_common(1)
            if count < self._work.batch_size:
                if not self._ended and self._number - self._waiting[0].number + 1 < self._window:
                    return
                size = self._waiting[0].letterbox.input_size
            batch = [picture for picture in self._waiting if picture.letterbox.input_size == size]
            self._waiting = [picture for picture in self._waiting if picture.letterbox.input_size != size]
            self._places.acquire()
            self._engine.submit(self._run, batch)

    def _run(self, batch: list[_Picture]) -> None:
        try:
            self._run_batch(batch)
        finally:
            self._places.release()

    def _run_batch(self, batch: list[_Picture]) -> None:
        error = self._attempt(batch)
        if error is None:
            return
        if self._each and isinstance(error, Exception):
            if len(batch) == 1:
                batch[0].result.set_result((batch[0].item, error))
                return
            for picture in batch:  # find the one that the engine cannot take
                self._run_batch([picture])
            return
        for picture in batch:
            picture.result.set_exception(error)

    def _attempt(self, batch: list[_Picture]) -> BaseException | None:
        try:
            if self._closed:
                return None
            if self._work.stopped():
                for picture in batch:
                    picture.result.set_result(None)
                return None
            images = np.stack([picture.pixels for picture in batch])
            windows = np.array([picture.letterbox.window for picture in batch], np.float32)
            outputs = self._work.run(images, windows)
        except BaseException as error:  # noqa: BLE001  (as in `_read`; engines raise types of their own)
            return error
        self._finisher.submit(self._finish, batch, outputs)
        return None

    def _finish(self, batch: list[_Picture], outputs: Outputs) -> None:
        for row, picture in enumerate(batch):
            try:
                found = self._work.finish({name: array[row] for name, array in outputs.items()}, picture.letterbox)
            except self._errors as error:
                picture.result.set_result((picture.item, error) if self._each else error)
            except BaseException as error:  # noqa: BLE001  (as in `_read`)
                picture.result.set_exception(error)
            else:
                picture.result.set_result((picture.item, found) if self._each else found)
