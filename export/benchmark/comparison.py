"""Every engine, precision and number of threads that this machine has for a model: speed, memory and accuracy."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from export.benchmark.artifact import machine
from export.benchmark.configurations import Configuration, configurations, read_artifacts
from export.benchmark.worker import Worker
from export.precision.gate import ALLOWED, MOST_JUDGED, detected_dataset, require_evidence, score_masks
from export.verify.pictures import pictures_of_folder
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.data.records import Dataset, require_objects
from maskrcnn.evaluation.coco_ap import MAX_DETECTIONS, CocoSummary, check_coco
from maskrcnn.evaluation.speed import STEPS, TOTAL
from runtime.artifact import Metadata
from runtime.errors import DeviceError, EngineError, InputError
from runtime.one_line import count_of
from runtime.pictures.read import ImageSource

_MOST_TIMED = 16  # images; each round takes the next of them
_TURN = 300  # milliseconds that the slowest configuration computes in a round, unless one image takes longer
# Two configurations are equal if chance decides between them this often, or if their times differ by less than this.
_CHANCE, _NEAR = 0.05, 0.02


@dataclass(frozen=True)
class Row:
    """What was measured of one configuration.

    Attributes:
        options: The arguments of `EngineOptions`.
        megabytes: Size of the artifact.
        milliseconds: Medians of a turn by step, from the image to run lengths; empty if it did not run.
        images_per_second: Throughput at the median total.
        memory: Largest resident set of its process, in megabytes; None if it was not measured.
        average_precision: Mask AP, the same for all numbers of threads; None if it was not measured.
        drop: How much lower that is than the reference; None without a reference.
        rounds: Milliseconds in each round.
        judged: Whether this precision of the engine needs no judgement, or the artifact was judged in it.
        python: One line of Python that opens this configuration.
        reason: Why it did not run.
    """

    artifact: str
    engine: str
    device: str
    precision: str
    threads: int | None
    options: Mapping[str, Any]
    megabytes: float
    judged: bool
    python: str
    milliseconds: Mapping[str, float]
    rounds: Sequence[float]
    images_per_second: float | None = None
    memory: float | None = None
    average_precision: float | None = None
    drop: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """All configurations of a model on one machine.

    Attributes:
        rows: First those that ran, the fastest first.
        best: Index of the fastest row within `max_drop`.
        equal: Indices of rows within `max_drop` that are as fast as the best, as far as the rounds can tell.
        against: What average precision was computed against: "annotations" or "float32 detections"; empty if not.
        images: Number of images that average precision was computed on; `objects` are in them.
        timed: Number of different images that were timed.
        machine: Processor, cores, versions and date.
    """

    rows: Sequence[Row]
    best: int
    equal: Sequence[int]
    max_drop: float
    against: str
    images: int
    objects: int
    timed: int
    runs: int
    machine: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def name(self, row: Row) -> str:
        """Return the name of a row's artifact, with its folder if two have the same."""
        paths = {each.artifact for each in self.rows}
        return Path(row.artifact).name if len({Path(path).name for path in paths}) == len(paths) else row.artifact


def compare(
    artifacts: Sequence[str | Path],
    pictures: Sequence[Path],
    truth: Dataset | None = None,
    *,
    max_drop: float | None = None,
    runs: int = 20,
    limit: int = MOST_JUDGED,
    progress: Say = say_nothing,
) -> Comparison:
    """Measure artifacts of one model in every engine, precision and number of threads that works here.

    Each configuration has a process of its own. They take turns, so that other load on the machine affects all alike;
    all are open at the same time. A program that calls this needs `if __name__ == "__main__"`, as with any spawned
    process.

    Args:
        artifacts: Artifacts of one checkpoint, in any formats and precisions.
        pictures: Images to time, at most 16, spread over them; without `truth`, also those for average precision. Empty
            takes the images of `truth`.
        truth: Annotated images for average precision, with the model's class ids. None compares with the detections of
            a float32 artifact; without one, there is no average precision.
        max_drop: Largest drop of mask AP that the best configuration may have, 0 to 1. None is that of bf16 in
            `export.precision.gate.ALLOWED`: 0.005, without `truth` 0.02.
        runs: Number of rounds, after one that warms up.
        limit: Most images for average precision; the first ones are used.
        progress: Called with a sentence before each step.

    Raises:
        ArtifactError: An artifact cannot be used, is not proven, is given twice, or comes from another checkpoint.
        InputError: `runs` or `limit` is below 1, `max_drop` is out of range, or there is nothing to time.
        DeviceError: No configuration runs on this machine.
        ImageError: An image cannot be used.
        DatasetError: `truth` has no objects, or a class that the model does not have.
        ConversionError: Without `truth`, nothing is detected on any image; or a float32 artifact finds no object.
        MissingPackageError: pycocotools is not installed.
    """
    if runs < 1 or limit < 1:
        raise InputError(f"runs is {runs} and limit is {limit}: expected numbers of at least 1")
    if max_drop is not None and not 0 <= max_drop <= 1:  # nor NaN
        raise InputError(f"max_drop is {max_drop}: expected a number from 0 to 1")
    check_coco(MAX_DETECTIONS)
    found = read_artifacts(map(Path, artifacts))
    if truth is not None:
        truth = replace(truth, records=truth.records[:limit])
        require_objects(truth)
    images = _images(pictures, truth)
    with ExitStack() as stack:
        groups = list(_opened(found, images, stack, progress))
        _take_turns(_running(groups), images, runs, progress)
        _running(groups)
        dataset, against = truth, "annotations"
        if dataset is None:
            against = "float32 detections"
            dataset = _detected(groups, found, pictures[:limit], progress)
        scores: list[CocoSummary | None] = []
        for group in groups:
            score = None if dataset is None else _score(group, dataset, progress)
            if score is not None and group[0].configuration.precision == "fp32":
                require_evidence(score, 0)  # whatever drop is allowed
            scores.append(score)
        _running(groups)
    rows = [
        entry.row(None if score is None else score["AP"])
        for group, score in zip(groups, scores, strict=True)
        for entry in group
    ]
    allowed = ALLOWED["bf16", against] if max_drop is None else max_drop
    rows, best, equal = ranked(rows, allowed)
    objects = next((_objects(score) for score in scores if score is not None), 0)
    judged = 0 if dataset is None else len(dataset)
    return Comparison(
        rows, best, equal, allowed, against if judged else "", judged, objects, len(images), runs, machine()
    )


def timed_pictures(given: Path | None, truth: Dataset | None) -> list[Path]:
    """Return the images of an argument, an image or a folder; without it, those of `truth` or the demo image."""
    if given is None:
        return [] if truth is not None else [Path(str(resources.files("maskrcnn").joinpath("demo.jpg")))]
    is_folder = os.path.isdir(given)  # noqa: PTH112  (False, not an error, for a name too long)
    return pictures_of_folder(given) if is_folder else [given]


class _Entry:
    """A configuration that is being measured; `worker` is None if it does not run, and `reason` says why."""

    def __init__(self, configuration: Configuration, worker: Worker | None, reason: str = "") -> None:
        self.configuration, self.worker, self.reason = configuration, worker, reason
        self.speed = 0.0  # milliseconds of an image after the first
        self.memory: float | None = None
        self.turns: list[npt.NDArray[np.float64]] = []  # milliseconds by step

    def fail(self, error: Exception) -> None:
        """Leave it out from now on, and end its process, which may still compute; a reason it already has stays."""
        if self.worker is not None:
            self.worker.close()
            self.worker, self.reason = None, str(error)

    def row(self, average_precision: float | None) -> Row:
        """Return what was measured."""
        one, ran = self.configuration, not self.reason
        medians = [float(value) for value in np.median(self.turns, axis=0)] if ran else []
        total = medians[-1] if ran else 0
        return Row(
            str(one.artifact),
            one.way.engine,
            one.way.device,
            one.precision,
            one.threads,
            one.options,
            _megabytes(one.artifact),
            one.judged,
            one.python,
            dict(zip(STEPS, medians, strict=ran)),
            [float(turn[-1]) for turn in self.turns] if ran else [],
            1000 / total if ran else None,
            self.memory,
            average_precision if ran else None,
            reason=self.reason,
        )


def _running(groups: Sequence[Sequence[_Entry]]) -> list[_Entry]:
    """Return the entries that run; there must be one."""
    running = [entry for group in groups for entry in group if entry.worker is not None]
    if not running:
        reasons = "; ".join(f"{group[0].configuration}: {group[0].reason}" for group in groups)
        raise DeviceError(f"no configuration runs on this machine: {reasons}")
    return running


def _images(pictures: Sequence[Path], truth: Dataset | None) -> list[ImageSource]:
    """Return the images to time, spread over all."""
    found: list[Any] = list(pictures) or [record.image for record in (truth.records if truth is not None else ())]
    if not found:
        raise InputError("there is nothing to time: give images, or a dataset with images")
    count = min(len(found), _MOST_TIMED)
    spread = [found[place * len(found) // count] for place in range(count)]
    return [each() if callable(each) else each for each in spread]


def _opened(
    artifacts: Mapping[Path, Metadata], images: Sequence[ImageSource], stack: ExitStack, progress: Say
) -> Iterator[list[_Entry]]:
    """Open and warm up every configuration.

    Of a group whose first does not run, only that one is returned, and no other group of its device and artifact.
    """
    absent: set[tuple[Path, str]] = set()
    for group in configurations(artifacts):
        if (group[0].artifact, group[0].way.device) in absent:
            continue
        entries: list[_Entry] = []
        for configuration in group:
            if entries and entries[0].worker is None:
                break
            progress(f"opening {configuration}")
            names = artifacts[configuration.artifact].class_names
            worker = stack.enter_context(closing(Worker(configuration, names)))
            entry = _Entry(configuration, worker)
            entries.append(entry)
            try:
                worker.open()
                worker.time(images)
                entry.speed = worker.time(images[:1])[0][TOTAL]
            except EngineError as error:
                entry.fail(error)
        if entries[0].worker is None:
            absent.add((group[0].artifact, group[0].way.device))
        yield entries


def _take_turns(entries: Sequence[_Entry], images: Sequence[ImageSource], runs: int, progress: Say) -> None:
    """Time all on the same images in each round, beginning with another one each time."""
    count = max(1, round(_TURN / max(entry.speed for entry in entries)))
    seconds = runs * count * sum(entry.speed for entry in entries) / 1000
    progress(
        f"{count_of(len(entries), 'configuration')} in {count_of(runs, 'round')} of {count_of(count, 'image')}, "
        f"about {count_of(math.ceil(seconds), 'second')}"
    )
    for number in range(runs):
        chosen = [images[(number * count + place) % len(images)] for place in range(count)]
        for place in range(len(entries)):
            entry = entries[(number + place) % len(entries)]
            if entry.worker is None:
                continue
            try:
                times = [list(each.values()) for each in entry.worker.time(chosen)]
                entry.turns.append(np.median(times, axis=0))
                if number == runs - 1:
                    entry.memory = entry.worker.memory()
            except EngineError as error:
                entry.fail(error)


def _detected(
    groups: Sequence[Sequence[_Entry]], artifacts: Mapping[Path, Metadata], pictures: Sequence[Path], progress: Say
) -> Dataset | None:
    """Return what the first float32 artifact that runs detects as if it were annotations; None without one."""
    for group in groups:
        entry = _first_running(group)
        if entry is not None and entry.worker is not None and entry.configuration.precision == "fp32":
            progress(f"average precision: {count_of(len(pictures), 'image')}, as {entry.configuration} sees them")
            threshold = artifacts[entry.configuration.artifact].score_threshold
            try:
                return detected_dataset(entry.worker, pictures, threshold)
            except EngineError as error:
                _fail(group, error)
    return None


def _score(group: Sequence[_Entry], dataset: Dataset, progress: Say) -> CocoSummary | None:
    """Return COCO's scores for the masks of a group; None if it does not run."""
    entry = _first_running(group)
    if entry is None or entry.worker is None:
        return None
    progress(f"average precision of {entry.configuration}, {count_of(len(dataset), 'image')}")
    try:
        return score_masks(entry.worker, dataset)
    except EngineError as error:
        _fail(group, error)
        return None


def _first_running(group: Sequence[_Entry]) -> _Entry | None:
    return next((entry for entry in group if entry.worker is not None), None)


def _fail(group: Sequence[_Entry], error: EngineError) -> None:
    """Leave out a group, whose entries differ in nothing but the number of threads."""
    for each in group:
        each.fail(error)


def _objects(summary: CocoSummary) -> int:
    return int(sum(row["objects"] or 0 for row in summary.classes.values()))


def _megabytes(artifact: Path) -> float:
    files = [artifact] if artifact.is_file() else [path for path in artifact.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 1e6


def ranked(rows: Sequence[Row], max_drop: float) -> tuple[list[Row], int, list[int]]:
    """Sort rows by time and compute drops; return them, the index of the best, and those of its equals.

    The reference is the first float32 row with an average precision or, without one, the highest. The best has the
    lowest time within `max_drop`, relative to the mean of all in each round.
    """
    known = [row for row in rows if row.average_precision is not None]
    reference = next((row.average_precision for row in known if row.precision == "fp32"), None)
    if reference is None:
        reference = max((row.average_precision or 0 for row in known), default=None)
    scored = [
        row
        if reference is None or row.average_precision is None
        else replace(row, drop=reference - row.average_precision)
        for row in rows
    ]
    ran = [row for row in scored if row.rounds]
    rounds = np.array([row.rounds for row in ran])
    relative = np.median(rounds / np.exp(np.log(rounds).mean(axis=0)), axis=1)
    order = [int(place) for place in np.argsort(relative, kind="stable")]
    drops = [ran[row].drop for row in order]
    fit = [place for place, drop in enumerate(drops) if reference is None or (drop is not None and drop <= max_drop)]
    best = fit[0]
    equal = [place for place in fit[1:] if are_equal(rounds[order[best]], rounds[order[place]])]
    return [*(ran[row] for row in order), *(row for row in scored if not row.rounds)], best, equal


def are_equal(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> bool:
    """Return whether two configurations take the same time, as far as their rounds can tell (sign test)."""
    ratios = second / first
    if abs(median(ratios.tolist()) - 1) < _NEAR:
        return True
    count = len(ratios)
    wins = max(int((ratios > 1).sum()), int((ratios < 1).sum()))
    return sum(math.comb(count, more) for more in range(wins, count + 1)) / 2**count >= _CHANCE
