"""Runs many images through a predictor: the next are read, and the last ones finished, while the engine works.

There are three threads. The first takes items from their source, prepares them, and groups those with one input size;
the second runs the engine; the third makes the results. Each item has a future, and the caller waits for them in order.
"""

import atexit
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from os import PathLike
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from runtime.arguments import count
from runtime.detections import Detections
from runtime.errors import EngineError, ImageError, InputError, RuntimeLibraryError
from runtime.pictures.letterbox import Letterbox, Pixels
from runtime.pictures.read import ImageSource
from runtime.steps import PredictorSteps

OnError = Literal["raise", "yield"]
Result = Detections | ImageError
Outputs = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Pixels, npt.NDArray[np.float32]], Outputs]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Work(Generic[T, R]):
    """What is done with each item.

    Attributes:
        prepare: Makes the letterboxed image of an item, in the first thread.
        run: Runs the engine on a batch of images and their windows, in the second thread.
        finish: Makes a result from the outputs of one image, without the batch axis, in the third thread.
        batch_size: Most images in a batch.
        ahead: Most items taken from the source before their results are taken; at least `batch_size`.
        stopped: Asked in the first two threads, before each item and each batch; if True, no more are begun.
    """

    prepare: Callable[[T], tuple[Letterbox, Pixels]]
    run: Run
    finish: Callable[[Outputs, Letterbox], R]
    batch_size: int
    ahead: int
    stopped: Callable[[], bool] = lambda: False


# Seconds for a source to give its next item before it is left to itself; the second after a signal.
_PATIENCE, _HASTE = 5.0, 0.5


class _Picture(NamedTuple):
    number: int
    item: Any  # None if results come without their items: a large array is then freed once it is letterboxed
    letterbox: Letterbox
    pixels: Pixels
    result: Future[Any]


def check_pictures(images: Iterable[ImageSource], batch_size: int) -> None:
    """Check the batch size, and that `images` is not a single image.

    Raises:
        InputError: `batch_size` is not a positive integer, or `images` is a single image.
    """
    count("batch_size", batch_size)
    given: object = images
    single = isinstance(given, str | bytes | bytearray | memoryview | PathLike) or not isinstance(given, Iterable)
    single = single or callable(getattr(given, "read", None))  # a file would give its lines
    if single or (isinstance(given, np.ndarray) and given.ndim != 4):
        raise InputError("images is a single image: pass a list of images, or an array [B, H, W, C]")


def stream(
    steps: PredictorSteps,
    images: Iterable[ImageSource],
    batch_size: int,
    ahead: int | None,
    *,
    on_error: OnError,
    rles: bool,
    run: Run | None = None,
) -> Generator[Result]:
    """Predict images in order; see `runtime.Predictor.predict_stream`. Threads start with the first result.

    `run` takes the place of that of `steps`.

    Raises:
        InputError: An argument is out of range, or `images` is a single image.
    """
    check_pictures(images, batch_size)
    batch_size = int(batch_size)
    ahead = min(3 * batch_size, sys.maxsize) if ahead is None else ahead  # being read, in the engine, being finished
    ahead = count("ahead", ahead, batch_size, expected=f"an integer of at least batch_size, {batch_size}")
    if on_error not in get_args(OnError):
        raise InputError(f"on_error is {on_error!r}: expected one of {', '.join(get_args(OnError))}")
    errors = (ImageError,) if on_error == "yield" else ()
    work = Work(partial(_prepare, steps), run or steps.run, partial(_finish, steps, rles), batch_size, ahead)
    return _results(work, images, errors, each=False)


def stream_each(work: Work[T, R], items: Iterable[T]) -> Generator[tuple[T, R | Exception]]:
    """Yield each item, in order, with its result or its error.

    An expected error of `prepare` or `finish` belongs to its item. If the engine fails on a batch, for whatever reason,
    its items run one at a time, and an error belongs to the item that fails. After a stop, only items that the engine
    had begun are yielded.

    Raises:
        Exception: What `items` raises, after the results of the items before it; any other error of `prepare` or
            `finish`, in its place.
    """
    return _results(work, items, (RuntimeLibraryError, OSError, MemoryError), each=True)


def _prepare(steps: PredictorSteps, image: ImageSource) -> tuple[Letterbox, Pixels]:
    letterbox, pixels = steps.prepare(image)
    if isinstance(image, np.ndarray) and np.may_share_memory(image, pixels):
        pixels = pixels.copy()  # a camera may write the next frame into the same array
    return letterbox, pixels


def _finish(steps: PredictorSteps, rles: bool, outputs: Outputs, letterbox: Letterbox) -> Detections:
    found = steps.finish(outputs, letterbox)
    if rles:
        _ = found.rles  # computes and caches them
    return found


def _results(
    work: Work[Any, Any], items: Iterable[Any], errors: tuple[type[Exception], ...], *, each: bool
) -> Generator[Any]:
    pipeline = _Pipeline(work, items, errors, each)
    interrupted = True  # while it waits, an error that is no result comes from a signal handler
    try:
        for allowed in itertools.count(work.ahead):
            pipeline.require_own_process()
            future = pipeline.next(allowed)
            error = None if future is None else future.exception()
            interrupted = False
            if future is None:
                return
            if error is not None:
                raise error
            result = future.result()
            if result is not None:  # else it came after a stop; results of other input sizes may follow
                yield result
            interrupted = True
    finally:
        pipeline.close(interrupted=interrupted)


class _Reader:
    """One thread that makes calls in order. A source may stall it forever, so nothing has to wait for its end.

    The threads of a pool are waited for when the interpreter ends.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        _readers.add(self)

    def submit(self, call: Callable[[], None]) -> None:
        """Make a call, which raises nothing, after those before it."""
        self._calls.put(call)

    def end(self) -> None:
        """End the thread after the calls submitted so far."""
        self._calls.put(None)

    @property
    def works(self) -> bool:
        """Whether calls are still made: not after the end, nor when the interpreter has stopped its threads."""
        return self._thread.is_alive() and not sys.is_finalizing()

    def ends_within(self, seconds: float) -> bool:
        """Wait for the thread's end; return whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while call := self._calls.get():
            call()
            del call  # else an idle thread would keep the stream alive, also in a program that ends


_readers: WeakSet[_Reader] = WeakSet()


@atexit.register
def _end_readers() -> None:
    """Let threads finish their current step when the program ends, unless their source stalls."""
    readers = list(_readers)
    for reader in readers:
        reader.end()
    for reader in readers:
        reader.ends_within(_HASTE)


class _Pipeline:
    """Prepares items, runs them in batches, and resolves a future for each, in order.

    Args:
        work: What to do with each item.
        items: Source of the items.
        errors: Errors of `prepare` and `finish` that become the result of their item. Other errors end the pipeline.
        each: Results come with their items, and an error of the engine becomes the result of its item too.
    """

    def __init__(
        self, work: Work[Any, Any], items: Iterable[Any], errors: tuple[type[Exception], ...], each: bool
    ) -> None:
        self._work, self._source, self._errors, self._each = work, iter(items), errors, each
        # An item waits for others of its size until this many are taken, itself included. Never more than may be taken,
        # or the caller would wait forever.
        self._window = max(work.batch_size, work.ahead - work.batch_size)
        self._reader = _Reader("predict-read")
        self._engine, self._finisher = (ThreadPoolExecutor(1, f"predict-{name}") for name in ("run", "finish"))
        self._places = Semaphore(2)  # in the engine: the batch that runs, and the next one
        self._taken: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._allowed = 0  # items that may be taken
        self._waiting: list[_Picture] = []
        self._number = -1  # of the last item taken
        self._ended = self._closed = False
        self._process = os.getpid()

    def next(self, allowed: int) -> Future[Any] | None:
        """Allow this many items to be taken in all; return the future of the next one, or None after the last one."""
        self._allowed = allowed
        self._reader.submit(self._read)
        return self._taken.get()

    def require_own_process(self) -> None:
        """Raise EngineError in a forked child: the threads are in its parent."""
        if self._process != os.getpid():
            raise EngineError("this stream was started before the process was forked: start another one in the child")

    def close(self, *, interrupted: bool) -> None:
        """Let each thread finish its current step, close the source if it is a generator, and end the threads.

        Args:
            interrupted: Wait only shortly for the source, which may be what stalls. It is closed when it goes on.
        """
        self._closed = True
        if self._process != os.getpid():
            return  # threads and source belong to the parent
        if not self._reader.works:  # the program ends
            self._close_source()
            return
        closed: Future[None] = Future()
        self._reader.submit(partial(_resolve, closed, self._close_source))
        self._reader.end()
        has_ended = self._reader.ends_within(_HASTE if interrupted else _PATIENCE)
        self._engine.shutdown()  # in order: each thread submits to the next
        self._finisher.shutdown()
        if has_ended:
            closed.result()

    def _close_source(self) -> None:
        if isinstance(self._source, Generator):
            self._source.close()

    def _read(self) -> None:
        """Take the items that are allowed."""
        while self._number + 1 < self._allowed and not self._ended and not self._closed:
            if not self._read_one():
                self._ended = True
                self._taken.put(None)
            self._hand_over()

    def _read_one(self) -> bool:
        """Return whether there may be more items."""
        result: Future[Any] = Future()
        try:
            taken = [] if self._work.stopped() else list(islice(self._source, 1))
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            result.set_exception(error)
            self._taken.put(result)
            taken = []
        if not taken:
            return False
        self._number += 1
        self._taken.put(result)
        try:
            self._prepare(taken[0], result)
        except BaseException as error:  # noqa: BLE001  (as above)
            result.set_exception(error)
            return False
        return True

    def _prepare(self, item: Any, result: Future[Any]) -> None:
        try:
            letterbox, pixels = self._work.prepare(item)
        except self._errors as error:
            self._give(result, item, error)
        else:
            kept = item if self._each else None
            self._waiting.append(_Picture(self._number, kept, letterbox, pixels, result))

    def _hand_over(self) -> None:
        """Submit each batch that is full, or whose first item has waited long enough."""
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
            try:
                self._engine.submit(self._run, batch)
            except RuntimeError as error:  # the interpreter is shutting down
                self._ended = True
                for picture in batch:
                    picture.result.set_exception(error)

    def _run(self, batch: list[_Picture]) -> None:
        try:
            self._run_batch(batch)
        finally:
            self._places.release()

    def _run_batch(self, batch: list[_Picture]) -> None:
        error = self._attempt(batch)
        if error is None:
            return
        if not (self._each and isinstance(error, Exception)):
            for picture in batch:
                picture.result.set_exception(error)
        elif len(batch) == 1:
            self._give(batch[0].result, batch[0].item, error)
        else:
            for picture in batch:
                self._run_batch([picture])

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
            self._finisher.submit(self._finish, batch, outputs)
        except BaseException as error:  # noqa: BLE001  (as in `_read`; engines raise types of their own)
            return error
        return None

    def _finish(self, batch: list[_Picture], outputs: Outputs) -> None:
        for row, picture in enumerate(batch):
            try:
                found = self._work.finish({name: array[row] for name, array in outputs.items()}, picture.letterbox)
            except self._errors as error:
                self._give(picture.result, picture.item, error)
            except BaseException as error:  # noqa: BLE001  (as in `_read`)
                picture.result.set_exception(error)
            else:
                self._give(picture.result, picture.item, found)

    def _give(self, result: Future[Any], item: Any, value: Any) -> None:
        result.set_result((item, value) if self._each else value)


def _resolve(result: Future[None], call: Callable[[], None]) -> None:
    try:
        call()
        result.set_result(None)
    except BaseException as error:  # noqa: BLE001  (raised again where the result is asked for)
        result.set_exception(error)
