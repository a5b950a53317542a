"""A training run on a Ray cluster: Ray tells the workers `TF_CONFIG`, and starts all again if one is lost."""

import io
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple, Protocol

from maskrcnn.distribution import missing_package
from maskrcnn.errors import ClusterError, WorkerLostError
from maskrcnn.tensorflow_import import import_tensorflow
from maskrcnn.training.cluster import ELSEWHERE
from runtime.one_line import one_line

_POLL = 0.5  # seconds
_PATIENCE = 60  # seconds until a run that does not begin says so
_PLAIN_PRINT = "RAY_TRAIN_ENABLE_PRINT_PATCH"  # else Ray logs what workers print

Relay = Callable[[str, str], None]


class Job(Protocol):
    """What each worker does; it goes to other machines."""

    def check(self) -> None:
        """Refuse, before any worker starts, what would be wrong for all."""

    def run(self, *, restarted: bool) -> int:
        """Train; resume if the worker is started again."""


class End(NamedTuple):
    """How a run ended that did not succeed: the exit code and the sentence of the worker that refused first."""

    code: int
    sentence: str


class _Board:
    """An actor that takes what the workers say, and tells them what became of the run."""

    def __init__(self, max_failures: int) -> None:
        self._most, self._begun = max_failures, dict[int, int]()
        self._lines, self._ends = list[tuple[str, str]](), dict[int, End]()

    def begin(self, worker: int) -> int | None:
        """Return how often a worker has begun before; None if the run has ended."""
        if self._ends:
            return None
        before = self._begun.get(worker, 0)
        self._begun[worker] = before + 1
        if before and worker == 0:
            self.say("stderr", f"... a worker was lost: all start again and resume ({before} of {self._most})")
        return before

    def say(self, stream: str, line: str) -> None:
        self._lines.append((stream, line))

    def end(self, worker: int, end: End) -> None:
        self._ends.setdefault(worker, end)

    def news(self) -> tuple[list[tuple[str, str]], bool]:
        """Return the lines since the last call, and whether the workers have begun."""
        lines, self._lines = self._lines, []
        return lines, bool(self._begun)

    def cause(self) -> End | None:
        """Return the end of the worker that did not end because of another one."""
        ends = [self._ends[worker] for worker in sorted(self._ends)]
        return next((end for end in ends if not end.sentence.endswith(ELSEWHERE)), ends[0] if ends else None)


class _Lines(io.TextIOBase):
    """A text stream whose lines go to the board."""

    def __init__(self, say: Callable[[str, str], None], name: str) -> None:
        self._say, self._name, self._begun = say, name, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._say(self._name, line)
        return len(text)


def train_on_ray(
    ray: Any, job: Job, workers: int, max_failures: int, code_of: Callable[[Exception], int | None], relay: Relay
) -> End | None:
    """Train on a Ray cluster, with one CPU and, if the cluster has any, one GPU for each worker.

    Args:
        ray: The module, connected to the cluster.
        job: What each worker does.
        workers: Their number. They are spread over the machines.
        max_failures: How often all workers start again and resume after one was lost.
        code_of: Returns the exit code of an error; None if it is unexpected. After an expected one, except a lost
            worker, nothing starts again.
        relay: Called with "stdout" or "stderr" and each line that the first worker prints.

    Returns:
        None if the run succeeded.

    Raises:
        ClusterError: The cluster is too small.
        WorkerLostError: A worker was lost once more often.
    """
    use_gpu = _require_room(ray, workers)
    import_tensorflow(touch_devices=False)  # Ray does, and would show its notices
    job.check()
    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415  (an extra)
    from ray.train.tensorflow import TensorflowTrainer  # noqa: PLC0415

    os.environ.setdefault(_PLAIN_PRINT, "0")
    board = ray.remote(num_cpus=0)(_Board).remote(max_failures)
    with tempfile.TemporaryDirectory(prefix="ray-train-") as storage:  # of Ray's own checkpoints: there are none
        trainer = TensorflowTrainer(
            _work,
            train_loop_config={"board": board, "job": job, "code_of": code_of},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, placement_strategy="SPREAD"),
            run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=max_failures)),
        )
        failure = _follow(ray, trainer, board, relay)
    end: End | None = ray.get(board.cause.remote())
    if failure is not None and end is None:
        raise _lost(failure, max_failures)
    return end


def _require_room(ray: Any, workers: int) -> bool:
    """Refuse a cluster that is too small; return whether workers get GPUs."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    use_gpu = any(node.get("GPU") for node in nodes)
    kinds = ("CPU", "GPU") if use_gpu else ("CPU",)
    most = sum(math.floor(min(node.get(kind, 0.0) for kind in kinds)) for node in nodes)
    if most < workers:
        raise ClusterError(
            f"the cluster is too small for {workers} workers: each takes one {' and one '.join(kinds)}, and there is "
            f"room for {most}: use " + f"--workers {most} or " * bool(most) + "a larger one"
        )
    return use_gpu


def _follow(ray: Any, trainer: Any, board: Any, relay: Relay) -> Exception | None:
    """Wait for the end of a run and relay what it says; return its error."""
    failures: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001  (raised again by the caller)
            failures.append(error)

    # Not in the main thread: there, Ray would take Ctrl-C for itself, and end the program with exit code 0.
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    since = time.monotonic()
    while True:
        ended = not thread.is_alive()
        lines, begun = ray.get(board.news.remote())
        for line in lines:
            relay(*line)
        if ended:
            return failures[0] if failures else None
        if not begun and time.monotonic() - since > _PATIENCE:
            relay("stderr", "... the workers have not started yet: processors or GPUs may be in use by other runs")
            since = time.monotonic()
        thread.join(_POLL)


def _lost(failure: Exception, max_failures: int) -> Exception:
    """Return our error for workers that were lost too often, or for a failure of Ray; others as they are."""
    workers: dict[int, Exception] = getattr(failure, "worker_failures", {})
    gone = [worker for worker, error in workers.items() if _is_of_ray(error)]
    unexpected = [error for error in workers.values() if not isinstance(error, WorkerLostError)]
    if unexpected and not gone:
        return unexpected[0]
    if not workers:
        reason = one_line(failure)[:300]
        return ClusterError(f"Ray gave up ({reason}): start the same command again") if _is_of_ray(failure) else failure
    who = f"worker {min(gone)}" if gone else "a worker"
    tries = f"after {max_failures} restarts, " if max_failures else ""
    return WorkerLostError(
        f"{tries}{who} is gone or does not answer: see Ray's log for its end, and start the same command with --resume"
    )


def _is_of_ray(error: Exception) -> bool:
    return type(error).__module__.startswith("ray.")


def _work(settings: dict[str, Any]) -> None:
    """Run the job as one worker."""
    import ray  # noqa: PLC0415
    from ray.train import get_context  # noqa: PLC0415

    board, worker = settings["board"], get_context().get_world_rank()
    before = ray.get(board.begin.remote(worker))
    if before is None:
        return
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    with ExitStack() as stack:
        if worker == 0:
            stack.enter_context(redirect_stdout(_Lines(board.say.remote, "stdout")))
            stack.enter_context(redirect_stderr(_Lines(board.say.remote, "stderr")))
        try:
            settings["job"].run(restarted=before > 0)
        except Exception as error:
            known = missing_package(error, "train", "maskrcnn train") or error
            code = settings["code_of"](known)
            if code is None:
                raise
            sentence = one_line(known)
            if isinstance(known, WorkerLostError):
                raise WorkerLostError(sentence) from None
            ray.get(board.end.remote(worker, End(code, sentence)))
            raise RuntimeError(sentence) from None  # Ray ends the other workers
