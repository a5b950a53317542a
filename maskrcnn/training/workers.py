"""What the workers of a run on several machines agree on before they start, and what becomes of the others if one ends.

Each worker reads its own files. If they differ, training goes on without an error and with a wrong result.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn.errors import TrainingError, WorkerLostError
from maskrcnn.training.cluster import ELSEWHERE
from runtime.errors import ToolkitError

T = TypeVar("T")

_DIGEST_WORDS = 8
_WORD_BYTES = 3  # float32, which every device can add up, is exact for such numbers
_WORDS_AT_ONCE = 2**18
# How TensorFlow says that another worker does not answer any more.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
_LOST_TEXT = re.compile(r"Collective ops is aborted|coordination service|CoordinationService")
_TASK = re.compile(r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)")


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """Return the number of processes that train together."""
    resolver = strategy.cluster_resolver
    if resolver is None:
        return 1
    cluster = resolver.cluster_spec().as_dict()
    return max(1, sum(len(cluster.get(job, ())) for job in ("chief", "worker")))


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Return the number of this process; the first, 0, is the one that writes the files."""
    resolver = strategy.cluster_resolver
    if worker_count(strategy) == 1 or resolver.task_id is None:
        return 0
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return int(resolver.task_id) + (0 if resolver.task_type == "chief" else chiefs)


def together(strategy: tf.distribute.Strategy, action: Callable[[], T], doing: str = "start") -> T:
    """Do something on every worker; if one refuses, all end.

    Args:
        action: May raise one of our errors, which this worker then raises.
        doing: What the action is for, for the message on the other workers.

    Raises:
        TrainingError: Another worker refused.
    """
    refusal: ToolkitError | None = None
    try:
        done = action()
    except ToolkitError as error:
        if worker_count(strategy) == 1:
            raise
        refusal = error
    if worker_count(strategy) > 1:
        refused = [worker for worker, (flag,) in enumerate(_exchange(strategy, [refusal is not None])) if flag]
        if refusal is not None:
            raise refusal
        if refused:
            raise TrainingError(f"worker {refused[0]} cannot {doing}, so none does: {ELSEWHERE}")
    return done


class Fact(NamedTuple):
    """Something that all workers must have in common: its text, and the sentence about it where it differs."""

    value: str
    differs: str


def agree(strategy: tf.distribute.Strategy, facts: Mapping[str, Fact]) -> None:
    """Compare what this worker starts with to what the first worker does.

    Args:
        facts: By name, for the message on the other workers. All workers have the same names.

    Raises:
        TrainingError: This worker or another one has something else than the first.
    """
    found = _exchange(strategy, [word for fact in facts.values() for word in _digest_words(fact.value)])
    own = worker_index(strategy)
    for place, (name, fact) in enumerate(facts.items()):
        part = slice(place * _DIGEST_WORDS, (place + 1) * _DIGEST_WORDS)
        others = [worker for worker, words in enumerate(found) if list(words[part]) != list(found[0][part])]
        if own in others:
            raise TrainingError(f"worker {own} cannot start: {fact.differs}")
        if others:
            raise TrainingError(f"worker {others[0]} has another {name} than worker 0, so none starts: {ELSEWHERE}")


def gather(strategy: tf.distribute.Strategy, content: bytes) -> list[bytes]:
    """Send bytes to all workers; return those of each worker, in order."""
    if worker_count(strategy) == 1:
        return [content]
    packed = np.frombuffer(zlib.compress(content, 1), np.uint8)
    sizes = _exchange(strategy, divmod(len(packed), 2**24)) @ [2**24, 1]
    count = -(-int(sizes.max()) // _WORD_BYTES)
    words = np.zeros((count, 4), np.uint8)
    words[:, :_WORD_BYTES].flat[: len(packed)] = packed
    numbers = words.view("<u4")[:, 0].astype(np.int64)
    parts = [_exchange(strategy, numbers[i : i + _WORDS_AT_ONCE]) for i in range(0, count, _WORDS_AT_ONCE)]
    rows = np.concatenate(parts, axis=1).astype("<u4")[..., None].view(np.uint8)[..., :_WORD_BYTES]
    return [zlib.decompress(row.tobytes()[:size]) for row, size in zip(rows, sizes, strict=True)]


def first_signal(strategy: tf.distribute.Strategy, number: int | None) -> int | None:
    """Return the number of a signal that this or another worker received, so that all end after the same step."""
    return number if worker_count(strategy) == 1 else int(_exchange(strategy, [number or 0]).max()) or None


@contextmanager
def losses_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn TensorFlow's errors about a worker that does not answer into ours.

    Raises:
        WorkerLostError: Another worker ended or cannot be reached.
    """
    try:
        yield
    except tf.errors.OpError as error:
        message = str(error.message)
        if worker_count(strategy) == 1 or not (isinstance(error, _LOST) or _LOST_TEXT.search(message)):
            raise
        own = worker_index(strategy)
        chiefs = len(strategy.cluster_resolver.cluster_spec().as_dict().get("chief", ()))
        tasks = (int(task) + (0 if job == "chief" else chiefs) for job, task in _TASK.findall(message))
        lost = next((f"worker {task}" for task in tasks if task != own), "another worker")
        raise WorkerLostError(
            f"{lost} is gone or does not answer: look for its message, and start all workers again with --resume"
        ) from error


def _digest_words(text: str) -> list[int]:
    digest = hashlib.sha256(text.encode()).digest()
    return [int.from_bytes(digest[i * _WORD_BYTES : (i + 1) * _WORD_BYTES]) for i in range(_DIGEST_WORDS)]


def _exchange(strategy: tf.distribute.Strategy, words: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Send numbers below 2^24 to all workers, the same count on each; return a row for each worker, in order."""
    table = _table(strategy, tf.constant(np.asarray([words], np.float32)), worker_count(strategy))
    return np.asarray(table.numpy(), np.int64)


@tf.function(reduce_retracing=True)
def _table(strategy: tf.distribute.Strategy, words: tf.Tensor, workers: int) -> tf.Tensor:
    """Return the row [1, N] of each worker as one tensor [workers, N]."""
    devices = strategy.num_replicas_in_sync // workers

    def row() -> tf.Tensor:
        device = tf.distribute.get_replica_context().replica_id_in_sync_group
        own = tf.where(device % devices == 0, device // devices, -1)  # the first device of a worker sends its row
        return tf.one_hot([own], workers, axis=0) * words

    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(row), axis=None)
