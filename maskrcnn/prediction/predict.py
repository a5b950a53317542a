"""A prediction run: paths in, a folder of results out. Running it again resumes an interrupted run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from maskrcnn.callbacks import Counted, Told, tell_nothing
from maskrcnn.configuration.require import require
from maskrcnn.errors import ArgumentError
from maskrcnn.prediction.job import Job, pixels_of
from maskrcnn.prediction.output_folder import LABELME, open_output
from maskrcnn.prediction.pictures import PictureRun
from maskrcnn.prediction.results import Totals, write_failures, write_results
from maskrcnn.prediction.rows import require_arrow, require_utf8, write_rows
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import Failure, Source, find_sources
from maskrcnn.prediction.video_file import require_video
from maskrcnn.prediction.videos import VideoRun
from maskrcnn.runs.interruption import Interruption
from runtime.atomic import write_text
from runtime.output.image_links import flat_names
from runtime.steps import PredictorSteps
from runtime.tiles.predict import TiledSteps
from runtime.tiles.tiling import Tiling
from runtime.tracking import require_tracker


@dataclass(frozen=True)
class PredictOptions:
    """Options of a run.

    Attributes:
        views: Kinds of views to draw, "overlay" and "splash", and "labelme" for files of that format.
        classes: Names of the classes to keep; empty keeps all.
        batch_size: Most images of one input size that the network runs at a time; at least 1.
        every: Predict every N-th video frame; at least 1.
        force: Replace results of other settings.
        tiling: The tiles of each image and frame; None: they are predicted whole.
        parquet: Write `results.parquet` in place of `results.json` and `results.csv`.
        track: Give the detections in videos ids that stay the same from frame to frame; there can be no images then.

    Raises:
        ConfigError: A number below 1.
    """

    views: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    batch_size: int = 1
    every: int = 1
    force: bool = False
    tiling: Tiling | None = None
    parquet: bool = False
    track: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "every"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class PredictRun:
    """The result of a run.

    Attributes:
        folder: Where the results are.
        made: Number of images and frames predicted by this run, not by earlier ones.
        failures: Inputs that could not be used.
        settings: What the results depend on.
        totals: Counts over all results; None if the run was interrupted.
        signal: Number of the signal that interrupted the run.
    """

    folder: Path
    made: int
    settings: RunSettings
    failures: list[Failure] = field(default_factory=list)
    totals: Totals | None = None
    signal: int | None = None


def predict_paths(
    paths: Sequence[str],
    output: Path,
    open_model: Callable[[], tuple[PredictorSteps, str]],
    options: PredictOptions,
    progress: Counted,
    told: Told = tell_nothing,
    ignored: Path | None = None,
    begun: Callable[[], None] = lambda: None,
) -> PredictRun:
    """Predict images and videos into a folder. Resumes an earlier run with the same settings.

    A file that cannot be used is recorded as a failure and does not stop the others. After Ctrl-C or SIGTERM, what is
    already in the network is finished and saved, and the run ends.

    Args:
        paths: Files, folders and patterns; see `find_sources`.
        output: The run folder; docs/prediction.md describes its files.
        open_model: Returns the predictor and the digest of its model. Called only if there is something to predict.
        options: See `PredictOptions`.
        progress: Called with "images", "views" or the name of a video.
        told: Called with each image that is done.
        ignored: Folder whose files are not predicted; the run folder unless given.
        begun: Called once it is known that the inputs and the model can be used.

    Raises:
        ImageError: A path does not exist or is not UTF-8 and Parquet is to be written, or there is nothing to predict.
        InputError: The model cannot use tiles of this size.
        ArgumentError: The model does not have one of the classes, a video is to be written to Parquet or for labelme,
            or there is an image and `track` is set.
        OutputError: As for `open_output`, or a result cannot be written.
        MissingPackageError: PyAV, which videos need, trackers, which tracking needs, pyarrow, which Parquet needs, or
            filelock is not installed.
    """
    interruption = Interruption()
    sources, unreadable = find_sources(paths, ignored or output)
    videos = [source for source in sources if source.is_video]
    if options.parquet:
        require_arrow()
        require_utf8(sources, unreadable)
        if videos:
            raise ArgumentError(f"{videos[0].name!r} is a video, and Parquet has a row per image: leave out --format")
    if options.track:
        images = [source for source in sources if not source.is_video]
        if images:
            raise ArgumentError(
                f"{images[0].name!r} is an image, and --track follows objects through videos: name only videos, "
                "such as 'clips/*.mp4'"
            )
        require_tracker()
    if LABELME in options.views and videos:
        raise ArgumentError(f"{videos[0].name!r} is a video, and labelme files are for images: leave out --labelme")
    if videos:
        require_video()
    predictor, model = open_model()
    if options.tiling is not None:
        options.tiling.check(cast("TiledSteps", predictor).resize)
    settings = _settings(predictor, model, options)
    begun()
    names = [source.name for source in sources if not source.is_video]
    labelme_names = dict(zip(names, flat_names(names), strict=True))
    # Before there is anything to save, a signal ends the run at once.
    opened = open_output(output, settings, force=options.force, labelme_names=labelme_names)
    with interruption.watched(), opened as folder:
        job = Job(
            predictor=predictor,
            folder=folder,
            run=settings.digest,
            classes=settings.classes,
            views=options.views,
            batch_size=options.batch_size,
            every=options.every,
            stopped=lambda: interruption.signal is not None,
            progress=progress,
            told=told,
            track=options.track,
            tiling=options.tiling,
        )
        folder.forget_results()
        if LABELME in options.views:
            write_text(folder.path / LABELME / "labels.txt", "".join(f"{name}\n" for name in settings.class_names[1:]))
        return _run(job, settings, sources, unreadable, interruption, parquet=options.parquet)


def _run(
    job: Job,
    settings: RunSettings,
    sources: Sequence[Source],
    unreadable: list[Failure],
    interruption: Interruption,
    *,
    parquet: bool,
) -> PredictRun:
    pictures, videos = PictureRun(job), VideoRun(job)
    pictures.run([source for source in sources if not source.is_video])
    videos.run([source for source in sources if source.is_video])
    failures = sorted(unreadable + pictures.failures + videos.failures)
    made = pictures.made + videos.made
    if interruption.signal is not None:
        return PredictRun(job.folder.path, made, settings, failures, signal=interruption.signal)
    done = {source.path for source in (*pictures.done, *videos.done)}
    write_failures(job.folder.path, failures)
    finished = (source for source in sources if source.path in done)
    if parquet:
        documents = ((source, job.folder.document(source)) for source in finished)
        images, detections = write_rows(job.folder.path, settings, documents, failures, pictures.unusable)
        return PredictRun(job.folder.path, made, settings, failures, Totals(images, 0, detections))
    return PredictRun(job.folder.path, made, settings, failures, write_results(job.folder, settings, finished))


def _settings(predictor: PredictorSteps, model: str, options: PredictOptions) -> RunSettings:
    names = tuple(predictor.class_names)
    unknown = [name for name in options.classes if name not in names[1:]]
    if unknown:
        raise ArgumentError(f"the model has no class {unknown[0]!r}; it has {', '.join(names[1:])}")
    return RunSettings(
        model=model,
        class_names=names,
        score_threshold=float(getattr(predictor, "score_threshold", 0.0)),
        nms_threshold=float(getattr(predictor, "nms_threshold", 0.0)),
        classes=tuple(sorted(set(options.classes))) or None,
        every=options.every,
        value_range=pixels_of(predictor).value_range,
        bands=pixels_of(predictor).bands,
        track=options.track or None,
        tile=None if options.tiling is None else options.tiling.tile,
        overlap=None if options.tiling is None else options.tiling.overlap,
    )
