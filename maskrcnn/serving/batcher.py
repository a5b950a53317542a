"""Images through a predictor: two threads decode and finish, one runs the engine on batches of one input size.

Everything else happens in the event loop: who waits, who is next, and who has given up.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from maskrcnn.serving.errors import BusyError, RequestError, status_of
from runtime.detections import Detections
from runtime.errors import EngineError
from runtime.pictures.letterbox import Letterbox, Pixels
from runtime.pictures.read import ImageSource
from runtime.steps import PredictorSteps

R = TypeVar("R")
Outputs = Mapping[str, npt.NDArray[Any]]
STAGES = ("queue", "decode", "engine", "finish")
_PROBE_EVERY = 2.0  # seconds, at least, from one try of a broken engine to the next


@dataclass(eq=False)
class _Job:
    """An image that waits for the engine."""

    letterbox: Letterbox
    pixels: Pixels
    outputs: asyncio.Future[tuple[Outputs, float]]  # with the seconds of the run
    since: float = field(default_factory=perf_counter)


@dataclass(frozen=True)
class Answer(Generic[R]):
    """The result of one image, or its error, and the seconds of each stage that it went through."""

    result: R | Exception
    seconds: Mapping[str, float]


class Batcher:
    """Predicts images of many requests.

    Args:
        steps: The predictor.
        batch_size: Most images in a batch.
        max_delay: Seconds that an image waits for others of its input size while the engine is idle.
        max_waiting: Most images that are in hand at a time.
        ran: Is told the size of each batch that the engine has run.
    """

    def __init__(
        self,
        steps: PredictorSteps,
        batch_size: int,
        max_delay: float,
        max_waiting: int,
        ran: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self._steps, self._ran = steps, ran
        self._batch_size, self._max_delay, self._max_waiting = batch_size, max_delay, max_waiting
        self._threads = ThreadPoolExecutor(2, "serve-decode")
        self._engine = ThreadPoolExecutor(1, "serve-engine")
        # Decoded images take more memory than their files, and results must not queue behind all files.
        self._decoded = asyncio.Semaphore(2 * batch_size + 2)
        self._ready: list[_Job] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._pace = 0.0  # seconds per image, of the last ones
        self._probe: tuple[Pixels, npt.NDArray[np.float32]] | None = None
        self._next_probe = 0.0
        self.waiting = 0
        self.broken = False
        self.draining = False

    def probe_with(self, image: ImageSource) -> None:
        """Run the engine on an image, which later tells a broken engine from an image that it cannot run."""
        letterbox, pixels = self._steps.prepare(image)
        self._probe = pixels[None], np.array([letterbox.window], np.float32)
        self._steps.run(*self._probe)

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken, and the engine can run."""
        return not self.draining and not self.broken

    def retry(self) -> None:
        """Let a broken engine that is idle run its probe, unless it did so just now; `is_ready` shows the outcome."""
        if self.broken and not self.draining and self._running is None and perf_counter() >= self._next_probe:
            self._running = asyncio.get_running_loop().create_task(self._retry())

    async def _retry(self) -> None:
        try:
            self.broken = not await asyncio.get_running_loop().run_in_executor(self._engine, self._probe_runs)
        finally:
            self._next_probe = perf_counter() + _PROBE_EVERY
            self._running = None
            self._start()

    def require_room(self, images: int = 1) -> None:
        """Refuse images that may not wait.

        Raises:
            RequestError: There are more than may ever wait.
            BusyError: There are too many now.
        """
        if self.draining:
            raise BusyError("the server is about to end", 1)
        if images > self._max_waiting:
            raise RequestError(f"the request has {images} images; at most {self._max_waiting} are allowed")
        if self.waiting + images > self._max_waiting:
            seconds = min(max(math.ceil(self.waiting * self._pace), 1), 60)
            raise BusyError(f"{self.waiting} images wait, and {self._max_waiting} may: try again later", seconds)

    async def predict(self, images: Sequence[ImageSource], make: Callable[[Detections], R]) -> list[Answer[R]]:
        """Predict the images of one request; what is cancelled before the engine has begun never reaches it.

        Args:
            images: Encoded images.
            make: Makes the result from the detections in one image, in a thread.

        Returns:
            One answer per image, in order.

        Raises:
            RequestError: As in `require_room`.
        """
        self.require_room(len(images))
        self.waiting += len(images)
        try:
            return await asyncio.gather(*(self._predict(image, make) for image in images))
        finally:
            self.waiting -= len(images)

    async def _predict(self, image: ImageSource, make: Callable[[Detections], R]) -> Answer[R]:
        begin, seconds = perf_counter(), dict.fromkeys(STAGES, 0.0)
        loop = asyncio.get_running_loop()
        result: R | Exception
        try:
            async with self._decoded:
                letterbox, pixels = await loop.run_in_executor(
                    self._threads, _timed, seconds, "decode", self._steps.prepare, image
                )
                job = _Job(letterbox, pixels, loop.create_future())
                del image, pixels
                self._ready.append(job)
                self._start()
                outputs, seconds["engine"] = await job.outputs
            result = await loop.run_in_executor(
                self._threads, _timed, seconds, "finish", self._finish, make, outputs, letterbox
            )
        except Exception as error:  # noqa: BLE001  (belongs to this image; the caller answers)
            # Frames in a traceback would keep the image until the garbage collector comes.
            result = error if status_of(error) == 500 else error.with_traceback(None)
        seconds["queue"] = perf_counter() - begin - sum(seconds.values())
        return Answer(result, seconds)

    def _start(self) -> None:
        """Let the engine run the next batch, if it is idle and a batch is due."""
        if self._running is not None:
            return
        self._ready = [job for job in self._ready if not job.outputs.done()]  # done: cancelled
        if not self._ready:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop, oldest = asyncio.get_running_loop(), self._ready[0]
        size, left = oldest.letterbox.input_size, oldest.since + self._max_delay - perf_counter()
        if left > 0:
            ((size, count),) = Counter(job.letterbox.input_size for job in self._ready).most_common(1)
            if count < self._batch_size:
                self._timer = loop.call_later(left, self._start)
                return
        batch = [job for job in self._ready if job.letterbox.input_size == size][: self._batch_size]
        self._ready = [job for job in self._ready if job not in batch]
        self._running = loop.create_task(self._run(batch))

    async def _run(self, batch: list[_Job]) -> None:
        begin = perf_counter()
        results: list[Outputs | Exception] = []
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._engine, self._attempt, batch)
        except Exception as error:  # noqa: BLE001  (nobody else would tell those who wait)
            results = [error] * len(batch)
        finally:
            self._running = None
            self._settle(batch, results or [EngineError("the engine was interrupted")] * len(batch), begin)
            self._start()

    def _settle(self, batch: list[_Job], results: list[Outputs | Exception], begin: float) -> None:
        """Give each image of a batch what came of it."""
        seconds = perf_counter() - begin
        self._pace = (3 * self._pace + seconds / len(batch)) / 4 if self._pace else seconds / len(batch)
        for job, result in zip(batch, results, strict=True):
            if job.outputs.done():
                continue
            if isinstance(result, Exception):
                job.outputs.set_exception(result)
            else:
                job.outputs.set_result((result, seconds))

    def _attempt(self, batch: list[_Job]) -> list[Outputs | Exception]:
        """Run a batch; if that fails, its images one by one, so that an error belongs to the image that fails."""
        try:
            windows = np.array([job.letterbox.window for job in batch], np.float32)
            outputs = self._steps.run(np.stack([job.pixels for job in batch]), windows)
            results = [{name: array[row] for name, array in outputs.items()} for row in range(len(batch))]
        except Exception as error:  # noqa: BLE001  (engines raise types of their own)
            if len(batch) > 1:
                return [result for job in batch for result in self._attempt([job])]
            if not isinstance(error, MemoryError):
                self.broken = not self._probe_runs()
            return [error]
        self.broken = False
        self._ran(len(batch))
        return list(results)

    def _probe_runs(self) -> bool:
        try:
            if self._probe is not None:
                self._steps.run(*self._probe)
        except Exception:  # noqa: BLE001  (as above)
            return False
        return self._probe is not None

    def _finish(self, make: Callable[[Detections], R], outputs: Outputs, letterbox: Letterbox) -> R:
        return make(self._steps.finish(outputs, letterbox))

    async def close(self) -> None:
        """End the threads, after their current step."""
        self.draining = True
        for threads in (self._threads, self._engine):
            await asyncio.get_running_loop().run_in_executor(None, threads.shutdown)


def _timed(seconds: dict[str, float], stage: str, call: Callable[..., R], *arguments: Any) -> R:
    begin = perf_counter()
    try:
        return call(*arguments)
    finally:
        seconds[stage] = perf_counter() - begin
