"""What the commands of `maskrcnn` print: progress on stderr, results on stdout."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from runtime.one_line import one_line

if TYPE_CHECKING:
    from maskrcnn.data.readers.findings import DatasetFinding
    from maskrcnn.data.records import Dataset
    from maskrcnn.evaluation.evaluate import Evaluation
    from maskrcnn.prediction.predict import Prediction
    from maskrcnn.training.train import TrainingResult


def progress(message: str) -> None:
    """Say what is being done."""
    typer.echo(f"... {one_line(message)}", err=True)


def written(path: Path) -> None:
    """Say what was written."""
    typer.echo(f"wrote {one_line(path)}")


def datasets(training: "Dataset", validation: "Dataset | None") -> None:
    """Say what is learnt from, and judged by."""
    names = ", ".join(training.class_names[1:6]) + (", ..." if len(training.class_names) > 6 else "")
    judged = "no pictures to judge by" if validation is None else f"{len(validation)} pictures to judge by"
    progress(f"{len(training)} pictures to learn from, {judged}; {len(training.class_names) - 1} classes: {names}")


def training(result: "TrainingResult") -> int:
    """Print what a run has come to; returns the exit code."""
    folder = result.folder
    typer.echo(f"training {result.ended} after {len(result.history)} epochs")
    if result.history:
        last = result.history[-1]
        typer.echo("  last epoch  " + ", ".join(f"{name} {value:.4g}" for name, value in last.items()))
    if result.best_score is not None and result.best_epoch is not None:
        typer.echo(f"  best epoch  {result.best_epoch + 1}, score {result.best_score:.4g}")
    for path in (folder.last, folder.best):
        if path.exists():
            written(path)
    if result.ended != "interrupted":
        return 0
    progress(f"the state is saved: go on with the same command and --resume (folder {folder.path})")
    return 128 + (result.signal or 0)


def pictures(done: int, total: int) -> None:
    """Say how far a walk over pictures is, now and then."""
    if done == total or done % 100 == 0:
        progress(f"{done} of {total} pictures")


def evaluation(found: "Evaluation") -> None:
    """Print COCO's figures, those of each class, and the speed."""
    names = list(found.segm.numbers)
    width = max(len(name) for name in names)
    typer.echo(f"{found.dataset.name}: {len(found.dataset)} pictures, {len(found.results)} predictions")
    typer.echo(f"  {'':<{width}}   boxes   masks")
    for ours, theirs in zip(found.bbox.numbers.items(), found.segm.numbers.values(), strict=True):
        typer.echo(f"  {ours[0]:<{width}}  {_share(ours[1])}  {_share(theirs)}")
    widest = max((len(name) for name in found.segm.classes), default=0)
    typer.echo(f"  {'class':<{widest}}  objects  box AP  mask AP  mask AP50")
    for name, row in found.segm.classes.items():
        box = found.bbox.classes[name]["AP"]
        typer.echo(
            f"  {name:<{widest}}  {row['objects']:>7}  {_share(box)}  {_share(row['AP']):>7}  {_share(row['AP50']):>9}"
        )
    speed = ", ".join(f"{name} {value:.1f}" for name, value in found.speed.median.items())
    typer.echo(f"  median milliseconds per picture: {speed}")


def _share(value: float | None) -> str:
    return f"{'-':>6}" if value is None else f"{value:6.3f}"


class _Lines(logging.Handler):
    """Log records as lines of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        progress(record.getMessage())


@contextmanager
def plain_warnings() -> Iterator[None]:
    """For the time of a block, print what `runtime` warns of in its log as lines of progress."""
    logger, lines = logging.getLogger("runtime"), _Lines(logging.WARNING)
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)


def prediction(result: "Prediction") -> int:
    """Print what a run of predictions has come to, and every failure; returns the exit code."""
    totals, failures = result.totals, result.failures
    if totals is not None:
        frames = f" and {totals.frames} frames" if totals.frames else ""
        before = totals.pictures + totals.frames - result.made
        typer.echo(f"{totals.pictures} pictures{frames}, {totals.detections} detections, {len(failures)} failures")
        typer.echo(f"  predicted now {result.made}, done before {max(before, 0)}")
        for name in ("results.json", "results.csv"):
            written(result.folder / name)
    for failure in failures:
        typer.echo(one_line(f"failed: {failure.name}: {failure.error}: {failure.message}"), err=True)
    if result.signal is not None:
        progress(f"interrupted after {result.made} pictures and frames, all kept: the same command goes on")
        return 128 + result.signal
    if failures:
        typer.echo(
            f"error: {len(failures)} of the inputs could not be used; see {result.folder / 'failures.json'}", err=True
        )
        return 5
    return 0


def findings(dataset: Path, found: "Sequence[DatasetFinding]", rows: bool) -> int:
    """Print the findings of a check as a table; returns the exit code.

    Args:
        dataset: What was looked at.
        found: In any order.
        rows: Every finding, not the first of each kind.
    """
    from maskrcnn.data.readers.findings import has_errors, summary, table_rows  # noqa: PLC0415

    if rows:
        for level, kind, where, message in table_rows(found):
            typer.echo(f"{level:<7}  {kind:<18}  {where}: {message}")
    else:
        for level, kind, count, first in summary(found):
            typer.echo(f"{level:<7}  {kind:<18}  {count:>6}  {first}")
    bad = has_errors(found)
    typer.echo(f"{one_line(dataset)}: {'cannot be trained on as it is' if bad else 'can be trained on'}")
    return 1 if bad else 0
