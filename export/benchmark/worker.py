"""A process for each configuration, so that its memory is its own and its threads disturb no other engine."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from export.benchmark.artifact import peak_memory
from export.benchmark.configurations import Configuration
from maskrcnn.configuration.model import EVALUATION_SCORE_THRESHOLD
from maskrcnn.evaluation.speed import run_timed
from maskrcnn.tensorflow_import import import_tensorflow
from runtime.detections import Detections
from runtime.engines.options import EngineOptions
from runtime.errors import EngineError, ImageError, ToolkitError
from runtime.pictures.read import ImageSource
from runtime.predictor import Predictor

_PATIENCE = 900  # seconds for one answer: TensorRT can take minutes to build an engine


class Worker:
    """A predictor in a process of its own, which a `with` statement ends.

    Attributes:
        class_names: Names by class id; 0 is the background.
    """

    def __init__(self, configuration: Configuration, class_names: tuple[str, ...]) -> None:
        context = get_context("spawn")
        self.class_names = class_names
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, configuration), daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process; may be called again."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def open(self) -> None:
        """Wait until the predictor is open.

        Raises:
            EngineError: The configuration cannot run here; the message says why. So in the other methods.
        """
        self._answer()

    def time(self, images: Sequence[ImageSource]) -> list[dict[str, float]]:
        """Return the milliseconds of each image by step, from the image to run lengths."""
        return self._ask("time", images)

    def memory(self) -> float | None:
        """Return the largest resident set of the process, in megabytes; None where it is not counted."""
        return self._ask("memory", None)

    def __call__(self, image: ImageSource) -> Detections:
        """Return the detections in one image, those of low score too."""
        return self._ask("detect", image)

    def _ask(self, task: str, argument: Any) -> Any:
        with suppress(OSError):  # it has ended; what it sent before says why
            self._connection.send((task, argument))
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._connection.poll(_PATIENCE):
                raise EngineError(f"no answer within {_PATIENCE // 60} minutes")
            error, value = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            raise EngineError(f"its process ended with {code}, as when memory runs out") from None
        if error is not None:
            raise error(value)
        return value


def _serve(connection: Connection, configuration: Configuration) -> None:
    """Open a predictor and answer until the process is ended; Ctrl-C is for the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if configuration.way.format == "savedmodel":
            import_tensorflow(touch_devices=False)  # which would fix the number of threads
        predictor = Predictor(
            configuration.artifact,
            configuration.way.device,
            require_verdict=configuration.judged,
            engine=EngineOptions(**configuration.options),
        )
        threshold = predictor.score_threshold
        low = max(predictor.metadata.lowest_score, min(EVALUATION_SCORE_THRESHOLD, threshold))
        answer: Any = None
        while True:
            connection.send((None, answer))
            task, argument = connection.recv()
            if task == "memory":
                answer = peak_memory()
            elif task == "detect":
                predictor.score_threshold = low
                answer = predictor(argument)
            else:
                predictor.score_threshold = threshold
                answer = [run_timed(predictor, [image], lambda found: found.rles)[1] for image in argument]
    except ToolkitError as error:
        connection.send((ImageError if isinstance(error, ImageError) else EngineError, str(error)))
    except EOFError:  # the process that asks has ended
        pass
