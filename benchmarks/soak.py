"""Memory of a process that predicts for long: resident set after each hundred predictions, held against a limit.

    python -m benchmarks.soak mine.onnx                   5000 predictions of one shape, 20 MB after the first 500
    python -m benchmarks.soak mine.onnx --shapes random   3000 random shapes, 100 MB after the first 1500
    python -m benchmarks.soak mine.onnx --leak 100000     a planted leak of so many bytes per prediction

Exits with 1 where memory grew by more than the limit.
"""

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runtime import Predictor

MEGABYTE = 1e6
EVERY = 100
_CELL = 16  # pixels


@dataclass(frozen=True)
class Soak:
    """What is run, and what is allowed.

    Attributes:
        predictions: How many.
        settled: Of these, how many memory may grow freely in.
        allowed: Growth after that, MB.
        random_shapes: Whether each picture has another size, in sixteenths of the network's input.
    """

    predictions: int
    settled: int
    allowed: float
    random_shapes: bool


FIXED = Soak(5000, 500, 20.0, random_shapes=False)
RANDOM = Soak(3000, 1500, 100.0, random_shapes=True)


@dataclass(frozen=True)
class Outcome:
    """What was seen.

    Attributes:
        predictions: After how many, for each entry of `resident`.
        resident: Resident set of the process, MB.
        growth: Highest after the settled predictions, less that at their end, MB.
        allowed: As asked.
        detections: In all pictures; a soak that finds nothing has not run the whole way.
    """

    predictions: list[int]
    resident: list[float]
    growth: float
    allowed: float
    detections: int

    @property
    def passed(self) -> bool:
        """Whether memory stayed within what is allowed."""
        return self.growth <= self.allowed


def soak(
    predictor: Predictor, picture: npt.NDArray[np.uint8], plan: Soak, leak: int = 0, *, show: bool = False
) -> Outcome:
    """Predict again and again.

    Args:
        predictor: Of either format.
        picture: With objects; of it each prediction gets all, or a part of random size.
        plan: How often, and what is allowed.
        leak: Bytes that are kept of each prediction on purpose.
        show: Whether each measurement is printed.
    """
    lost, counts, resident, detections = [], [], [], 0
    for number, each in enumerate(_pictures(picture, plan), start=1):
        found = predictor(each)
        detections += len(found)
        _ = found.rles
        if leak:
            lost.append(np.ones(leak, np.uint8))
        if number % EVERY == 0 or number == plan.settled:
            gc.collect()
            counts.append(number)
            resident.append(_resident())
            if show:
                print(f"{number:6d} {resident[-1]:8.1f} MB", flush=True)
    base = resident[counts.index(plan.settled)]
    growth = max(value - base for number, value in zip(counts, resident, strict=True) if number > plan.settled)
    return Outcome(counts, resident, growth, plan.allowed, detections)


def _pictures(picture: npt.NDArray[np.uint8], plan: Soak) -> Iterator[npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    sides = np.array(picture.shape[:2]) // _CELL
    for _ in range(plan.predictions):
        height, width = generator.integers(sides // 4, sides + 1) * _CELL if plan.random_shapes else picture.shape[:2]
        yield picture[:height, :width]


def _resident() -> float:
    """Resident set of this process, MB (Linux)."""
    (line,) = (row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS:"))
    return float(line.split()[1]) * 1024 / MEGABYTE


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", help="an .onnx file or SavedModel folder")
    parser.add_argument("--shapes", choices=("fixed", "random"), default="fixed")
    parser.add_argument("--predictions", type=int)
    parser.add_argument("--settled", type=int)
    parser.add_argument("--leak", type=int, default=0, metavar="BYTES")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    plan = FIXED if options.shapes == "fixed" else RANDOM
    plan = Soak(
        options.predictions or plan.predictions, options.settled or plan.settled, plan.allowed, plan.random_shapes
    )
    from maskrcnn import demo_picture  # noqa: PLC0415  (brings TensorFlow along)

    with Predictor(options.artifact, "cpu") as predictor:
        outcome = soak(predictor, demo_picture(), plan, options.leak, show=True)
    print(
        f"{options.artifact}: {options.shapes} shapes, {plan.predictions} predictions, {outcome.detections} found: "
        f"{outcome.growth:+.1f} MB after the first {plan.settled}, {outcome.allowed:.0f} allowed: "
        f"{'passed' if outcome.passed else 'FAILED'}"
    )
    if options.json:
        options.json.write_text(json.dumps(vars(outcome), indent=1) + "\n", encoding="utf-8")
    return 0 if outcome.passed and outcome.detections else 1


if __name__ == "__main__":
    sys.exit(main())
