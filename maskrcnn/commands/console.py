"""What commands print: progress on stderr, results on stdout, with control characters escaped."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from runtime.one_line import escaped, one_line

if TYPE_CHECKING:
    from maskrcnn.batch.run import BatchRun
    from maskrcnn.data.readers.findings import DatasetFinding
    from maskrcnn.data.records import Dataset
    from maskrcnn.evaluation.evaluate import Evaluation
    from maskrcnn.prediction.predict import PredictRun
    from maskrcnn.training.train import TrainingResult


def progress(message: str) -> None:
    """Print what is being done."""
    typer.echo(f"... {one_line(message)}", err=True)


def relay(stream: str, line: str) -> None:
    """Print a line that a worker on another machine printed."""
    typer.echo(line, err=stream == "stderr")


def refusal(sentence: str) -> None:
    """Print the error that a worker on another machine ended with."""
    typer.echo(f"error: {one_line(sentence)}", err=True)


def show(lines: Iterable[str]) -> None:
    """Print lines of a result."""
    for line in lines:
        typer.echo(escaped(line))


def written(path: Path) -> None:
    """Print the path of an output."""
    show([f"wrote {path}"])


def pictures(done: int, total: int) -> None:
    """Print a line of progress for every hundredth image and the last one."""
    if done == total or done % 100 == 0:
        progress(f"{done} of {total} images")


class _Lines(logging.Handler):
    """Prints log records as lines of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        progress(record.getMessage())


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print the warnings that `runtime` logs as lines of progress, for the time of a block."""
    logger, lines = logging.getLogger("runtime"), _Lines(logging.WARNING)
    logger.addHandler(lines)
    try:
        yield
    finally:
        logger.removeHandler(lines)


def dataset_report(name: str, found: "Sequence[DatasetFinding]") -> None:
    """Print what `maskrcnn data check` would about a dataset that was opened."""
    from maskrcnn.data.readers.findings import summary  # noqa: PLC0415

    for level, kind, count, first in summary(found):
        left_out = " left out" if level == "error" else ""
        progress(f"{name}: {level} {kind} ({count}{left_out}): {first}")


def pretrained(rows: "Sequence[Mapping[str, Any]]") -> None:
    """Print a line for each name of pretrained weights, and where the files are or are to be kept."""
    lines = [f"{'name':<19}  {'network':<24}  {'classes':>7}  {'size':>6}  license"]
    for row in rows:
        size = "?" if row["bytes"] is None else f"{row['bytes'] / 10**6:.0f} MB"
        lines.append(f"{row['name']:<19}  {row['network']:<24}  {row['classes']:>7}  {size:>6}  {row['license']}")
        lines.append(f"  {'in the cache' if row['cached'] else 'would be kept'}: {row['path']}")
    show(lines)


def datasets(training: "Dataset", validation: "Dataset | None") -> None:
    """Print the size and the classes of the datasets of a training run."""
    names = ", ".join(training.class_names[1:6]) + (", ..." if len(training.class_names) > 6 else "")
    count = "no" if validation is None else len(validation)
    images = f"{len(training)} training images, {count} validation images"
    progress(f"{images}; {len(training.class_names) - 1} classes: {names}")


def training(result: "TrainingResult") -> int:
    """Print the outcome of a training run; return the exit code."""
    folder = result.folder
    lines = [f"training {result.ended} after {len(result.history)} epochs"]
    if result.history:
        last = result.history[-1]
        lines.append("  last epoch  " + ", ".join(f"{name} {value:.4g}" for name, value in last.items()))
    if result.best_score is not None and result.best_epoch is not None:
        lines.append(f"  best epoch  {result.best_epoch + 1}, score {result.best_score:.4g}")
    lines += [f"wrote {path}" for path in (folder.last, folder.best) if path.exists()]
    show(lines)
    if result.ended != "interrupted":
        return 0
    progress(f"the state is saved in {folder.path}: add --resume to the same command to resume")
    return 128 + (result.signal or 0)


def evaluation(found: "Evaluation") -> None:
    """Print COCO's metrics over all classes and per class, and the speed."""
    numbers, classes = found.segm.numbers, found.segm.classes
    width = max(map(len, numbers))
    lines = [f"{found.dataset.name}: {len(found.dataset)} images, {len(found.results)} detections"]
    lines.append(f"  {'':<{width}}   boxes   masks")
    lines += [f"  {name:<{width}}  {_share(found.bbox.numbers[name])}  {_share(numbers[name])}" for name in numbers]
    width = max(map(len, classes), default=0)
    lines.append(f"  {'class':<{width}}  objects  box AP  mask AP  mask AP50")
    for name, row in classes.items():
        scores = f"{_share(found.bbox.classes[name]['AP'])}  {_share(row['AP']):>7}  {_share(row['AP50']):>9}"
        lines.append(f"  {name:<{width}}  {row['objects']:>7}  {scores}")
    speed = ", ".join(f"{name} {value:.1f}" for name, value in found.speed.median.items())
    show([*lines, f"  median milliseconds per image: {speed}"])


def _share(value: float | None) -> str:
    return f"{'-':>6}" if value is None else f"{value:6.3f}"


def prediction(result: "PredictRun", *, parquet: bool) -> int:
    """Print the outcome of a prediction run and every failure; return the exit code."""
    files = ("results.parquet",) if parquet else ("results.json", "results.csv")
    totals, failures = result.totals, result.failures
    if totals is not None:
        frames = f" and {totals.frames} frames" if totals.frames else ""
        before = max(totals.pictures + totals.frames - result.made, 0)
        show(
            [
                f"{totals.pictures} images{frames}, {totals.detections} detections, {len(failures)} failures",
                f"  {result.made} predicted in this run, {before} in earlier ones",
                *(f"wrote {result.folder / name}" for name in files),
            ]
        )
    for failure in failures:
        typer.echo(one_line(f"failed: {failure.name}: {failure.error}: {failure.message}"), err=True)
    if result.signal is not None:
        progress(f"interrupted after {result.made} images and frames: run the same command again to resume")
        return 128 + result.signal
    if failures:
        folder = one_line(result.folder / "failures.json")
        typer.echo(f"error: {len(failures)} inputs could not be used: see {folder}", err=True)
        return 5
    return 0


def batch(result: "BatchRun") -> int:
    """Print the outcome of a run on a cluster and the first failures; return the exit code."""
    if result.counts is None:
        progress("interrupted: run the same command again to resume")
        return 128 + (result.signal or 0)
    counts = result.counts
    show(
        [
            f"{counts.pictures} images, {counts.rows} rows, {counts.failures} failures",
            f"  {result.made} predicted in this run, {counts.pictures - counts.missing - result.made} in earlier ones",
        ]
    )
    for path, error, message in result.failures:
        typer.echo(one_line(f"failed: {path}: {error}: {message}"), err=True)
    if counts.missing or counts.doubled:
        typer.echo(
            f"error: {counts.missing} images have no row and {counts.doubled} rows are doubled, so there is no "
            f"_SUCCESS in {one_line(result.output)}: run the same command again, into a new folder if rows are doubled",
            err=True,
        )
        return 1
    show([f"wrote {result.output}"])
    if counts.failures:
        typer.echo(f"error: {counts.failures} images could not be used: each is a row with its error", err=True)
        return 5
    return 0


def findings(dataset: Path, found: "Sequence[DatasetFinding]", rows: bool) -> int:
    """Print the findings of a dataset check; return the exit code.

    Args:
        dataset: Path of the dataset.
        found: In any order.
        rows: Print every finding instead of the first of each kind.
    """
    from maskrcnn.data.readers.findings import has_errors, summary, table_rows  # noqa: PLC0415

    if rows:
        show(f"{level:<7}  {kind:<18}  {where}: {message}" for level, kind, where, message in table_rows(found))
    else:
        show(f"{level:<7}  {kind:<18}  {count:>6}  {first}" for level, kind, count, first in summary(found))
    bad = has_errors(found)
    show([f"{dataset}: {'cannot be trained on as it is' if bad else 'can be trained on'}"])
    return 1 if bad else 0
