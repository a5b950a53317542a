"""A whole run: paths in, a folder of results out, again and again until all of it is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskrcnn.callbacks import Counted
from maskrcnn.configuration.require import require
from maskrcnn.interruption import Interruption
from maskrcnn.prediction.job import Job
from maskrcnn.prediction.output_folder import open_output
from maskrcnn.prediction.pictures import PictureRun
from maskrcnn.prediction.results import Totals, write_failures, write_results
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import Failure, Source, find_sources
from maskrcnn.prediction.video_file import require_video
from maskrcnn.prediction.videos import VideoRun
from runtime.errors import InputError
from runtime.steps import PredictorSteps


@dataclass(frozen=True)
class PredictOptions:
    """How a run predicts.

    Attributes:
        views: Kinds of drawn pictures and videos to make: "overlay", "splash".
        classes: Names of the classes to keep; empty keeps all.
        batch_size: Pictures that go through the network together, where their input size is the same.
        every: Of a video each so many-th frame is predicted.
        force: Whether results of other settings are replaced.

    Raises:
        ConfigError: A number below 1.
    """

    views: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    batch_size: int = 1
    every: int = 1
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "every"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}: expected at least 1")


@dataclass(frozen=True)
class PredictRun:
    """What a run has come to.

    Attributes:
        folder: Of the results.
        made: Pictures and frames that were predicted by it; the others were there.
        failures: What could not be used.
        totals: Of all results; None if the run was interrupted.
        signal: Number of the signal that interrupted it.
    """

    folder: Path
    made: int
    failures: list[Failure] = field(default_factory=list)
    totals: Totals | None = None
    signal: int | None = None


def predict_paths(
    paths: Sequence[str],
    output: Path,
    open_model: Callable[[], tuple[PredictorSteps, str]],
    options: PredictOptions,
    progress: Counted,
) -> PredictRun:
    """Predict pictures and videos into a folder, and go on where an earlier run with the same settings ended.

    A file that cannot be used is noted, and the others go on. Ctrl-C and SIGTERM end the run after the picture in hand.

    Args:
        paths: Files, folders and patterns; see `find_sources`.
        output: The folder; docs/prediction.md says what is written to it.
        open_model: Gives the predictor, and the digest of its model. Called once there is something to predict.
        options: See `PredictOptions`.
        progress: Told how far the run is.

    Raises:
        ImageError: A path does not exist, or there is nothing to predict.
        InputError: The model does not have one of the classes.
        OutputError: The folder holds other things, or results of other settings, or cannot be written.
        MissingPackageError: There is a video, and no PyAV.
    """
    interruption = Interruption()
    with interruption.watched():
        sources, unreadable = find_sources(paths, output)
        if any(source.is_video for source in sources):
            require_video()
        predictor, model = open_model()
        settings = _settings(predictor, model, options)
        with open_output(output, settings, force=options.force) as folder:
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
            )
            folder.forget_results()
            return _run(job, settings, sources, unreadable, interruption)


def _run(
    job: Job, settings: RunSettings, sources: Sequence[Source], unreadable: list[Failure], interruption: Interruption
) -> PredictRun:
    pictures, videos = PictureRun(job), VideoRun(job)
    pictures.run([source for source in sources if not source.is_video])
    videos.run([source for source in sources if source.is_video])
    failures = sorted(unreadable + pictures.failures + videos.failures)
    made = pictures.made + videos.made
    if interruption.signal is not None:
        return PredictRun(job.folder.path, made, failures, signal=interruption.signal)
    done = {source.path for source in (*pictures.done, *videos.done)}
    write_failures(job.folder.path, failures)
    totals = write_results(job.folder, settings, (source for source in sources if source.path in done))
    return PredictRun(job.folder.path, made, failures, totals)


def _settings(predictor: PredictorSteps, model: str, options: PredictOptions) -> RunSettings:
    names = tuple(predictor.class_names)
    unknown = [name for name in options.classes if name not in names[1:]]
    if unknown:
        raise InputError(f"the model has no class {unknown[0]!r}; it has {', '.join(names[1:])}")
    return RunSettings(
        model=model,
        class_names=names,
        score_threshold=float(getattr(predictor, "score_threshold", 0.0)),
        nms_threshold=float(getattr(predictor, "nms_threshold", 0.0)),
        classes=tuple(sorted(set(options.classes))) or None,
        every=options.every,
    )
