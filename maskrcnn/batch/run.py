"""A run on Ray Data: images in, files of rows out, each image exactly once through kills of any process.

The rows that are written are the truth. A run predicts the images that have none; Ray's checkpoint tells a file that
was finished from one whose writer was killed. An image that ends its worker takes the others of its block with it
once: in a second pass, each of them runs alone.
"""

import threading
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn.batch.actor import PredictActor, peak_memory
from maskrcnn.batch.cluster import (
    SMALL_TASK,
    Need,
    StoppedError,
    connected,
    in_our_words,
    require_shared,
    stopped_by_signals,
    wait_for_room,
    with_gpu,
    workers_that_fit,
)
from maskrcnn.batch.folder import CHECKPOINT, BatchFolder, Counts, open_batch
from maskrcnn.batch.sources import find_pictures, is_url, plain, read_pictures
from maskrcnn.callbacks import Counted, Say, say_nothing
from maskrcnn.configuration.require import require
from maskrcnn.errors import ArgumentError, ClusterError
from maskrcnn.prediction.output_folder import RUN_FILE
from maskrcnn.prediction.rows import WRITING, Marks, failed_row, require_arrow, row_schema
from maskrcnn.prediction.settings import RunSettings, model_digest
from runtime.artifact_files.read import read_metadata, require_proven

_MOST_PER_BLOCK = 64  # images
_BLOCKS_PER_WORKER = 16  # at least, if there are so many images, so that all end together and little is lost in a kill
_MEMORY_FACTOR = 1.3  # over the peak of a warm-up
_ATTEMPTS_ALONE = 2
_MOST_CRASHES = 100  # one after the other, without an image that does not crash
_MOST_FAILED_STARTS = 3
_SECONDS_BETWEEN_COUNTS = 2.0


@dataclass(frozen=True)
class BatchOptions:
    """Options of a run.

    Attributes:
        workers: Processes with a predictor; None for as many as fit on the cluster.
        threads: Threads of each.
        batch_size: Most images of one input size that a network runs together.
        device: As for `Predictor`; with "cuda" or "tensorrt" each worker takes a GPU, with "auto" if the cluster has
            any, and otherwise uses the CPU.
        score_threshold: Lowest score of a detection; None for the model's.
        nms_threshold: Largest IoU of two detections of one class; None for the model's.
        classes: Names of the classes to keep; empty keeps all.
        max_pixels: Most pixels of an image; None for 100 million.
        value_range: As for `Predictor`.
        bands: As for `Predictor`.
        force: Replace rows of other settings.

    Raises:
        ConfigError: A number below 1.
        ArgumentError: The device has a number, though Ray gives each worker its GPU.
    """

    workers: int | None = None
    threads: int = 1
    batch_size: int = 1
    device: str = "auto"
    score_threshold: float | None = None
    nms_threshold: float | None = None
    classes: tuple[str, ...] = ()
    max_pixels: int | None = None
    value_range: tuple[float, ...] | None = None
    bands: tuple[int, ...] | None = None
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} is {value}: expected at least 1")
        if self.need.gpus and ":" in self.device:
            kind = self.device.partition(":")[0]
            raise ArgumentError(f"device is {self.device!r}: Ray gives each worker its GPU, so expected {kind!r}")

    @property
    def need(self) -> Need:
        """What one worker takes, without its memory."""
        return Need(self.threads, int(self.device.startswith(("cuda", "tensorrt"))))

    @property
    def of_worker(self) -> dict[str, Any]:
        """The arguments of `PredictActor`."""
        return {name: value for name, value in vars(self).items() if name not in ("workers", "force")}


@dataclass(frozen=True)
class BatchRun:
    """The result of a run.

    Attributes:
        output: Folder or URL of the rows.
        made: Number of images that this run predicted, not earlier ones.
        counts: From a scan of the rows; None if the run was interrupted.
        failures: Path, error and message of the first images of `sources` that could not be used.
        signal: Number of the signal that interrupted the run.
    """

    output: str
    made: int = 0
    counts: Counts | None = None
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    signal: int | None = None


@dataclass(frozen=True)
class _Job:
    """A run in progress."""

    ray: Any
    folder: BatchFolder
    worker: Mapping[str, Any]  # arguments of `_Worker`
    need: Need
    workers: int
    names: Mapping[str, str]
    progress: Counted
    say: Say


class _Worker(PredictActor):
    """A worker that gets the model over the network where its machine has no file of that path."""

    def __init__(self, model: str, content: Any, **options: Any) -> None:
        if content is not None and not Path(model).exists():
            import ray  # noqa: PLC0415  (an extra)

            super().__init__(ray.get(content), **options)
        else:
            super().__init__(model, **options)

    def alone(self, path: str) -> dict[str, Any]:
        """Return the row of one image."""
        try:
            found: dict[str, Any] = self(read_pictures([path])).to_pylist()[0]
        except Exception as error:  # noqa: BLE001  (with no row, the batch would end at this image each time)
            return failed_row(path, None, type(error).__name__, str(error), self._marks)
        return found

    def ready(self) -> None:
        """Return once the worker is made."""


def predict_dataset(
    model: str | Path,
    sources: Sequence[str],
    output: str | Path,
    *,
    address: str = "local",
    options: BatchOptions = BatchOptions(),
    progress: Counted = lambda _label, _done, _total: None,
    say: Say = say_nothing,
) -> BatchRun:
    """Predict images on a Ray cluster into Parquet, one row per image, also for one that cannot be used.

    Called again with the same arguments, it resumes an interrupted or killed run. If this process is connected to a
    cluster, that one is used. docs/scaling.md describes sources, rows and files.

    Args:
        model: An `.onnx` file or SavedModel folder.
        sources: Files, folders, patterns, lists and URLs; see `maskrcnn.batch.sources.find_pictures`.
        output: Folder of the run, which all machines reach by this path, or its URL.
        address: "auto", "local", or HOST:PORT of a cluster's head.
        options: See `BatchOptions`.
        progress: Called with "images", the number done and the total.
        say: Called with a sentence if something takes long.

    Returns:
        The counts, in which `missing` and `doubled` are 0, else no `_SUCCESS` was written.

    Raises:
        ImageError: A source does not exist, or there is nothing to predict.
        ArgumentError: An image is named twice or a video, or an argument is wrong.
        ArtifactError: The model cannot be used, or differs from machine to machine.
        ClusterError: There is no cluster, it is too small, or it failed.
        OutputError: The folder holds other things, is in use, or cannot be written.
        MissingPackageError: Ray, pyarrow, filelock or an engine is not installed.
    """
    require_arrow()
    output = plain(str(output))
    names = find_pictures(sources, output)
    model = Path(model).absolute()
    require_proven(model, read_metadata(model))
    digest, run = model_digest(model), BatchRun(output)
    with connected(address, options.need, options.workers) as ray, stopped_by_signals():
        try:
            need, device = with_gpu(ray, options.need, options.device)
            workers_that_fit(ray, need, options.workers)
            several = len([node for node in ray.nodes() if node["Alive"]]) > 1
            content = ray.put(model.read_bytes()) if several and model.is_file() else None
            worker = {"model": str(model), "content": content, "digest": digest} | options.of_worker
            worker["device"] = device
            settings, peak = _probe(ray, worker, need, say)
            need = need._replace(memory=int(peak * _MEMORY_FACTOR))
            workers = workers_that_fit(ray, need, options.workers)
            with open_batch(output, settings, force=options.force) as folder:
                if several and not is_url(output):
                    require_shared(ray, f"{folder.path}/{RUN_FILE}")
                run = _run(_Job(ray, folder, worker, need, workers, names, progress, say), settings)
        except StoppedError as stopped:
            return BatchRun(output, signal=stopped.args[0])
        except Exception as error:
            ours = in_our_words(error, output)
            if ours is error:
                raise
            raise ours from error
    return run


def _probe(ray: Any, worker: Mapping[str, Any], need: Need, say: Say) -> tuple[RunSettings, int]:
    """Make a worker once, in a process of its own; return its settings and its peak memory in bytes."""
    wait_for_room(ray, need, say)
    task = ray.remote(**need.options(), max_calls=1)(_warm_up)
    found: tuple[RunSettings, int] = ray.get(task.remote(_Worker, dict(worker)))
    return found


def _warm_up(kind: type["_Worker"], worker: dict[str, Any]) -> tuple[RunSettings, int]:
    made = kind(**worker)
    made.close()
    return made.settings, peak_memory()


def _run(job: _Job, settings: RunSettings) -> BatchRun:
    written = job.folder.begin()
    job.folder.add_names(dict(job.names))
    missing = [path for path in job.names if path not in written]
    done = len(job.names) - len(missing)
    if missing:
        wait_for_room(job.ray, job.need, job.say)
        with _counted(job, done):
            _predict_blocks(job, missing)
        written = job.folder.end_pass()
        _predict_alone(job, [path for path in missing if path not in written], Marks.of(settings))
        job.folder.end_pass()
    counts = job.folder.count(dict(job.names))
    job.progress("images", counts.pictures - counts.missing, counts.pictures)
    if not counts.missing and not counts.doubled:
        job.folder.finish(counts)
    return BatchRun(job.folder.shown, len(missing) - counts.missing, counts, job.folder.failures(20, job.names.keys()))


def _predict_blocks(job: _Job, paths: Sequence[str]) -> None:
    """Predict images in blocks; those of a block whose worker ends get no rows."""
    from ray.data import ActorPoolStrategy, DataContext, read_datasource  # noqa: PLC0415  (an extra)
    from ray.data.checkpoint import CheckpointConfig  # noqa: PLC0415
    from ray.data.datasource import FilenameProvider  # noqa: PLC0415

    from maskrcnn.batch.reading import NothingToFilter, PictureSource  # noqa: PLC0415

    size = min(max(len(paths) // (_BLOCKS_PER_WORKER * job.workers), 1), _MOST_PER_BLOCK)
    blocks = [list(paths[start : start + size]) for start in range(0, len(paths), size)]
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = max(_MOST_CRASHES, len(blocks) // 10)
    context.checkpoint_config = CheckpointConfig(
        "path",
        f"{job.folder.path}/{CHECKPOINT}",
        delete_checkpoint_on_success=False,
        override_filesystem=job.folder.system,
        checkpoint_manager_cls=NothingToFilter,
    )
    with DataContext.current(context):
        rows = read_datasource(PictureSource(blocks), **SMALL_TASK, override_num_blocks=len(blocks))
        # Ray replaces no worker of a pool that has ended for good, and would then wait forever: so they restart always,
        # and it is the blocks that are not tried again.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # there is nothing else for the limits
            rows = rows.map_batches(
                _Worker,
                fn_constructor_kwargs=dict(job.worker),
                batch_size=None,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=min(job.workers, len(blocks)), max_tasks_in_flight_per_actor=2),
                max_restarts=-1,
                max_task_retries=0,
                **job.need.options(),
            )
        try:
            rows.write_parquet(
                job.folder.path,
                filesystem=job.folder.system,
                filename_provider=FilenameProvider(job.folder.attempt, "parquet"),
                ray_remote_args=SMALL_TASK,
                schema=row_schema(),
                **WRITING,
            )
        except job.ray.exceptions.RayError as error:
            if not _crashed(job.ray, error):
                raise


def _crashed(ray: Any, error: Exception) -> bool:
    """Return whether an error says that a process ended."""
    crashes = (
        ray.exceptions.RayActorError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.ObjectLostError,
    )
    return isinstance(error, crashes) and in_our_words(error, "").__class__ is ClusterError


def _predict_alone(job: _Job, paths: Sequence[str], marks: Marks) -> None:
    """Predict images one at a time; one that ends its worker again and again gets a row that says so."""
    waiting = deque((path, 1) for path in paths)
    workers: list[Any] = []
    running: dict[Any, tuple[Any, str, int]] = {}
    rows: list[dict[str, Any]] = []
    files = crashes = 0
    while waiting or running:
        while waiting and len(running) < job.workers:
            worker = workers.pop() if workers else _start_alone(job)
            path, attempt = waiting.popleft()
            running[worker.alone.remote(path)] = (worker, path, attempt)
        (ready,), _ = job.ray.wait(list(running), num_returns=1)
        worker, path, attempt = running.pop(ready)
        try:
            rows.append(job.ray.get(ready))
            workers.append(worker)
            crashes = 0
        except job.ray.exceptions.RayError as error:
            if not _crashed(job.ray, error):
                raise
            if attempt < _ATTEMPTS_ALONE:
                waiting.appendleft((path, attempt + 1))
                continue
            crashes += 1
            if crashes >= _MOST_CRASHES:
                raise ClusterError(
                    f"{crashes} images one after the other ended their worker, {path!r} at last: the fault is not in "
                    "the images; look at the logs of Ray, and run the same command again to resume"
                ) from error
            times = 1 + _ATTEMPTS_ALONE
            message = f"its worker ended each of the {times} times that it was predicted, {_ATTEMPTS_ALONE} times alone"
            rows.append(failed_row(path, None, "WorkerCrashed", message, marks))
        if len(rows) >= _MOST_PER_BLOCK or not (waiting or running):
            job.folder.add_rows(rows, files)
            files, rows = files + 1, []


def _start_alone(job: _Job) -> Any:
    """Start a worker outside of a pool and wait until it is made."""
    wait_for_room(job.ray, job.need, job.say)
    options = job.need.options() | {"max_restarts": 0, "max_task_retries": 0}
    for attempt in range(1, _MOST_FAILED_STARTS + 1):
        worker = job.ray.remote(**options)(_Worker).remote(**job.worker)
        try:
            job.ray.get(worker.ready.remote())
        except job.ray.exceptions.RayError as error:
            if attempt == _MOST_FAILED_STARTS or not _crashed(job.ray, error):
                raise
        else:
            break
    return worker


@contextmanager
def _counted(job: _Job, before: int) -> Iterator[None]:
    """Report how many images have rows, from time to time during a block."""
    ended, seen = threading.Event(), dict[str, int]()
    total = len(job.names)

    def count() -> None:
        while not ended.wait(_SECONDS_BETWEEN_COUNTS):
            job.progress("images", before + job.folder.rows_of_new_files(seen), total)

    job.progress("images", before, total)
    thread = threading.Thread(target=count, name="batch-count", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
