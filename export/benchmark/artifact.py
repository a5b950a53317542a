"""Measure how long an artifact takes: by step, batch size, number of detections and operator type."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.evaluation.speed import STEPS, run_timed
from runtime.engines.versions import engine_of
from runtime.errors import InputError
from runtime.pictures.read import ImageSource
from runtime.predictor import Predictor

PERCENTILES = (50, 90, 99)
# Numbers of detections to measure, if the image has so many: none, a simple image, a crowded one.
STRATA = (0, 10, 100)


@dataclass(frozen=True)
class Timing:
    """Times of one batch size and number of detections.

    Attributes:
        detections: Number of detections in each image.
        milliseconds: By step, the percentiles 50, 90 and 99 of a run. "pre" reads and letterboxes, "model" runs the
            graph, "post" maps the detections back to the image and encodes their masks (RLE).
        images_per_second: Throughput at the median of the total.
    """

    batch: int
    detections: int
    runs: int
    milliseconds: Mapping[str, Mapping[str, float]]
    images_per_second: float


@dataclass(frozen=True)
class Benchmark:
    """Results of a benchmark.

    Attributes:
        image: Height and width of the image ("image") and of the network's input ("input").
        operators: Milliseconds by operator type, of one run with the most detections.
        peak_memory: Largest resident set of the process, in megabytes, with the engine and Python; None on Windows.
        machine: Processor, cores, versions and date.
    """

    artifact: str
    precision: str
    device: str
    image: Mapping[str, Sequence[int]]
    timings: Sequence[Timing]
    operators: Mapping[str, float]
    peak_memory: float | None
    machine: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def benchmark(
    artifact: str | Path,
    image: ImageSource,
    *,
    device: str = "auto",
    batches: Sequence[int] = (1,),
    runs: int = 20,
    progress: Say = say_nothing,
) -> Benchmark:
    """Time an artifact on one image; the cases take turns, so that other load on the machine affects all alike.

    An image with many objects allows more cases. Each case has `runs` timed runs, after one to warm up.

    Raises:
        InputError: `runs` or a batch size is below 1.
    """
    if runs < 1 or not batches or min(batches) < 1:
        raise InputError(f"runs is {runs} and batches is {list(batches)}: expected numbers of at least 1")
    predictor = Predictor(artifact, device)
    progress("choosing score thresholds")
    cases = [(batch, count, level) for batch in batches for count, level in _levels(predictor, image)]
    samples: dict[tuple[int, int], list[list[float]]] = {(batch, count): [] for batch, count, _ in cases}
    for number in range(runs + 1):  # the first round warms up
        progress(f"round {number} of {runs}")
        for batch, count, level in cases:
            predictor.score_threshold = level
            _, times = run_timed(predictor, [image] * batch, lambda found: found.rles)
            if number:
                samples[batch, count].append(list(times.values()))
    timings = [_timing(batch, count, np.array(rows)) for (batch, count), rows in samples.items()]
    predictor.score_threshold = cases[-1][2]
    placement = predictor.explain(image)
    operators: dict[str, float] = {}
    for (_, operator), milliseconds in placement.milliseconds.items():
        operators[operator] = operators.get(operator, 0.0) + milliseconds
    letterbox, prepared = predictor.prepare(image)
    return Benchmark(
        str(artifact),
        predictor.metadata.precision,
        predictor.device,
        {"image": list(letterbox.image_size), "input": list(prepared.shape[:2])},
        timings,
        dict(sorted(operators.items(), key=lambda row: -row[1])),
        peak_memory(),
        machine() | dict([engine_of(predictor.metadata.format, predictor.device)]),
    )


def _levels(predictor: Predictor, image: ImageSource) -> list[tuple[int, float]]:
    """Return the numbers of detections that the image allows, each with the score threshold that gives it."""
    lowest = predictor.metadata.lowest_score
    predictor.score_threshold = lowest
    scores = predictor(image).scores
    levels = {0: 1.0}
    for wanted in STRATA[1:]:
        count = min(wanted, len(scores))
        if count:
            below = float(scores[count]) if count < len(scores) else lowest
            levels.setdefault(count, (float(scores[count - 1]) + below) / 2)
    predictor.score_threshold = 1.0
    if len(predictor(image)):  # scores of exactly 1, which no threshold excludes
        del levels[0]
    return list(levels.items())


def _timing(batch: int, count: int, rows: npt.NDArray[np.float64]) -> Timing:
    percentiles = {
        step: {f"p{p}": float(np.percentile(rows[:, column], p)) for p in PERCENTILES}
        for column, step in enumerate(STEPS)
    }
    return Timing(batch, count, len(rows), percentiles, 1000 * batch / percentiles["total"]["p50"])


def peak_memory() -> float | None:
    """Return the largest resident set of this process, in megabytes; None where nothing counts it."""
    status = Path("/proc/self/status")  # Linux: `ru_maxrss` would be at least that of the process that started this one
    found = re.search(r"^VmHWM:\s+(\d+)", status.read_text(encoding="ascii"), re.MULTILINE) if status.exists() else None
    if found is not None:
        return int(found[1]) / 1024
    try:
        import resource  # noqa: PLC0415  (POSIX only)
    except ModuleNotFoundError:
        return None
    unit = 1024**2 if platform.system() == "Darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def machine() -> dict[str, str]:
    """Describe where and when something was measured."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }
