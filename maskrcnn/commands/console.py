"""What commands print: messages on stderr, the result on stdout, as text or as one JSON document.

A command says what it has found with `show` and `written`, whatever its options are. As text, lines are printed at
once. With --json, the fields that go with them are collected, and `Session.end` prints one document. With --quiet,
only warnings and errors are printed on stderr. Control characters are escaped.
"""

import json
import logging
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from textwrap import wrap
from typing import IO, TYPE_CHECKING, Any

import typer

from maskrcnn.callbacks import Say
from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.commands.progress_bar import Progress, progress_bar as show_progress, stage_line
from maskrcnn.training.short_names import short_facts, validation_facts
from runtime.json_file import read_json_file
from runtime.one_line import class_list, count_of, escaped, one_line

if TYPE_CHECKING:
    from maskrcnn.batch.run import BatchRun
    from maskrcnn.data.readers.findings import DatasetFinding
    from maskrcnn.data.records import Dataset
    from maskrcnn.evaluation.evaluate import Evaluation
    from maskrcnn.prediction.predict import PredictRun
    from maskrcnn.training.run import RunFolder
    from maskrcnn.training.train import TrainingResult

INTERRUPTED = "Interrupted"  # the type of an error that is a signal


@dataclass
class Session:
    """One call of a program.

    Attributes:
        json: Whether to print a document in place of text.
        quiet: Whether to leave out messages that are neither warnings nor errors.
        command: Words of the command; "" until it begins.
        document: Fields of the result so far.
        written: Paths of outputs.
        warnings: What may be wrong.
        next: Command lines that are useful now.
        error: Type and message of what ends the command.
        stdout: Where the document goes.
    """

    json: bool = False
    quiet: bool = False
    command: str = ""
    document: dict[str, Any] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    error: dict[str, str] | None = None
    stdout: IO[str] | None = None
    _ended: bool = False

    @contextmanager
    def running(self, command: str, *, json: bool, quiet: bool) -> Iterator[None]:
        """Run a command. With --json, what anything else prints on stdout goes to stderr."""
        self.command, self.json, self.quiet, self.stdout = command, json, quiet, sys.stdout
        if not json:
            yield
            return
        with redirect_stdout(sys.stderr):
            yield

    def end(self, code: int | None) -> None:
        """Print the document, once; `code` is None for a server, which is ready and goes on."""
        if self._ended or not self.json or not (self.command or code):
            return
        self._ended = True
        head: dict[str, Any] = {"command": self.command, "exit_code": code}
        if self.error is not None:
            head["error"] = self.error
        head |= {"written": self.written, "warnings": self.warnings, "next": self.next}
        print(json.dumps(head | _plain(self.document), allow_nan=False), file=self.stdout or sys.stdout, flush=True)

    def end_with(self, error: BaseException) -> None:
        """Print the document of a command that ends with an error, unless that only is an exit code."""
        code = getattr(error, "exit_code", getattr(error, "code", None))  # of a usage error or `Exit`; of `SystemExit`
        if not isinstance(code, int):
            code = 1 if not isinstance(error, Exception) else exit_code(error) or 1
        context = getattr(error, "ctx", None)  # of a usage error
        self.command = self.command or getattr(context, "command_path", "")
        if code and self.error is None:
            message = getattr(error, "format_message", error.__str__)()
            ends = isinstance(error, KeyboardInterrupt | SystemExit)
            self.note_error(INTERRUPTED if ends else type(error).__name__, "interrupted" if ends else message)
        self.end(code)

    def note_error(self, kind: str, message: object) -> None:
        """Note what ends the command."""
        self.error = {"type": kind, "message": one_line(message)}


_session = Session()


def begin(words: Sequence[str]) -> None:
    """Begin a session; `words` are the arguments of the program, of which none is parsed yet."""
    global _session  # noqa: PLW0603  (a process is one call of a program, except in tests)
    _session = Session(json="--json" in words)


def finish(error: BaseException | None = None) -> None:
    """Print the document of a command that has ended, if it has one, and end its session."""
    global _session
    ended, _session = _session, Session()
    if error is None:
        ended.end(0)
    else:
        ended.end_with(error)


def session() -> Session:
    """Return the session of this call of a program."""
    return _session


def is_quiet() -> bool:
    """Return whether only warnings and errors are printed on stderr."""
    return _session.quiet


def _plain(value: Any) -> Any:
    """Return JSON values; a number that is not finite is null, as JSON has none."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    elif is_dataclass(value):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    elif hasattr(value, "item"):  # a number of NumPy's
        value = value.item()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)  # a path


def _tell(line: str) -> None:
    """Print a line on stderr as it is at this moment: above the last line of a terminal that shows progress."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def progress(message: str) -> None:
    """Print what is being done."""
    if not _session.quiet:
        _tell(f"... {one_line(message)}")


def warning(message: str) -> None:
    """Print what may be wrong, also with --quiet."""
    _session.warnings.append(one_line(message))
    _tell(f"warning: {one_line(message)}")


def error(kind: str, message: object) -> None:
    """Print what ends the command; `kind` is the type of the error."""
    _session.note_error(kind, message)
    _tell(f"error: {one_line(message)}")


def usage_error(message: str) -> None:
    """Print what is wrong with a command line; the document, if there is one, has been printed."""
    _tell(f"error: {one_line(message)}")


def show(lines: Iterable[str], **found: Any) -> None:
    """Print lines of a result, or add its fields to the document."""
    if _session.json:
        _session.document |= found
        return
    for line in lines:
        typer.echo(escaped(line))


def wrapped(line: str, indent: int) -> list[str]:
    """Return a line of a result as lines of 80 columns; those after the first are indented."""
    space = " " * indent
    return wrap(escaped(line), 80, subsequent_indent=space, break_long_words=False, break_on_hyphens=False)


def written(*paths: str | Path) -> None:
    """Print the path of each output, or add it to the document."""
    _session.written += map(str, paths)
    show(f"wrote {path}" for path in paths)


def command(*words: object, **options: object) -> str:
    """Return a command line as a shell takes it; options that are None, False or empty are left out."""
    line = list(map(str, words))
    for name, value in options.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if value is True:
            line.append(flag)
        elif value:
            line += [
                part for each in (value if isinstance(value, list | tuple) else [value]) for part in (flag, str(each))
            ]
    return shlex.join(line)


def useful_next(*commands: str) -> None:
    """Print commands that are useful now."""
    _session.next += commands
    for line in commands:
        if not _session.quiet:
            _tell(f"next: {one_line(line)}")


def relay(stream: str, line: str) -> None:
    """Print a line that a worker on another machine printed."""
    if stream == "stderr" or _session.json:
        if not (_session.quiet and line.startswith(("... ", "next: "))):
            _tell(line)
    else:
        typer.echo(line)


@contextmanager
def stages() -> Iterator[Say]:
    """Yield what shows each step of some work, with its time, for the time of a block."""
    with stage_line(progress, quiet=_session.quiet) as say:
        yield say


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show the progress of something for the time of a block, unless --quiet is given."""
    with show_progress(progress, quiet=_session.quiet) as shown:
        yield shown


class _Lines(logging.Handler):
    """Prints log records as warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        warning(record.getMessage())


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print the warnings that `runtime` logs as ours, for the time of a block."""
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
        say = progress if level == "info" else warning
        say(f"{name}: {'' if level == 'warning' else level + ' '}{kind} ({count}{left_out}): {first}")


def pretrained(rows: "Sequence[Mapping[str, Any]]") -> None:
    """Print a line for each name of pretrained weights, and where the files are or are to be kept."""
    lines = [f"{'name':<19}  {'network':<24}  {'classes':>7}  {'size':>7}  license"]
    for row in rows:
        size = f"{'~' if row['bytes'] is None else ''}{'?' if row['megabytes'] is None else row['megabytes']} MB"
        lines.append(f"{row['name']:<19}  {row['network']:<24}  {row['classes']:>7}  {size:>7}  {row['license']}")
        place = "in the package" if row["url"] is None else "in the cache" if row["cached"] else "would be kept"
        lines.append(f"  {place}: {row['path']}")
    show(lines, weights=rows)


def datasets(training: "Dataset", validation: "Dataset | None") -> None:
    """Print the size and the classes of the datasets of a training run."""
    validated = "no validation images" if validation is None else count_of(len(validation), "validation image")
    progress(f"{count_of(len(training), 'training image')}, {validated}; {class_list(training.class_names)}")


def training(found: "TrainingResult") -> int:
    """Print the outcome of a training run; return the exit code."""
    folder = found.folder
    lines = [f"training {found.ended} after {count_of(len(found.history), 'epoch')}"]
    if found.history:
        last = {name: value for name, value in found.history[-1].items() if not name.startswith("val_")}
        lines += wrapped("  last epoch  " + "  ".join(short_facts(last, 3)), 14)
        validated = validation_facts(found.history[-1], 3)
        lines += wrapped("  validation  " + "  ".join(validated), 14) if validated else []
    if found.best_score is not None and found.best_epoch is not None:
        lines.append(f"  best epoch  {found.best_epoch + 1}, score {found.best_score:.4g}")
    best = None if found.best_epoch is None else found.best_epoch + 1
    show(lines, ended=found.ended, best_epoch=best, best_score=found.best_score, **_trained(folder, found.history))
    written(*(path for path in (folder.last, folder.best) if path.exists()))
    if found.ended != "interrupted":
        return 0
    interrupted(f"the state is saved in {folder.path}: add --resume to the same command to resume")
    return 128 + (found.signal or 0)


def _trained(folder: "RunFolder", history: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {"folder": folder.path, "epochs": len(history), "last_epoch": history[-1] if history else None}


def trained_elsewhere(folder: "RunFolder", commands: Sequence[str]) -> None:
    """Note the outcome of a run on other machines, which has printed it as text, for the document."""
    if session().json:
        show((), ended="finished", **_trained(folder, read_json_file(folder.history)))
        written(*(path for path in (folder.last, folder.best) if path.exists()))
        _session.next += commands


def interrupted(message: str) -> None:
    """Print that a run was interrupted, and how to resume it."""
    _session.note_error(INTERRUPTED, message)
    _tell(f"... {one_line(message)}")


def evaluation(found: "Evaluation") -> None:
    """Print COCO's metrics over all classes and per class, and the speed."""
    numbers, classes = found.segm.numbers, found.segm.classes
    width = max(map(len, numbers))
    size = f"{count_of(len(found.dataset), 'image')}, {count_of(len(found.results), 'detection')}"
    lines = [f"{found.dataset.name}: {size}"]
    lines.append(f"  {'':<{width}}   boxes   masks")
    lines += [f"  {name:<{width}}  {_share(found.bbox.numbers[name])}  {_share(numbers[name])}" for name in numbers]
    width = max(map(len, classes), default=0)
    lines.append(f"  {'class':<{width}}  objects  box AP  mask AP  mask AP50")
    for name, row in classes.items():
        scores = f"{_share(found.bbox.classes[name]['AP'])}  {_share(row['AP']):>7}  {_share(row['AP50']):>9}"
        lines.append(f"  {name:<{width}}  {row['objects']:>7}  {scores}")
    speed = ", ".join(f"{name} {value:.1f}" for name, value in found.speed.median.items())
    show(
        [*lines, *wrapped(f"  median milliseconds per image: {speed}", 4)],
        dataset=found.dataset.name,
        images=len(found.dataset),
        detections=len(found.results),
        score_threshold=found.score_threshold,
        boxes=found.bbox,
        masks=found.segm,
        median_milliseconds=found.speed.median,
    )


def _share(value: float | None) -> str:
    return f"{'-':>6}" if value is None else f"{value:6.3f}"


def prediction(found: "PredictRun", views: Sequence[str], *, parquet: bool) -> int:
    """Print the outcome of a prediction run and every failure; return the exit code."""
    files = ("results.parquet",) if parquet else ("results.json", "results.csv")
    totals, failures = found.totals, found.failures
    show((), folder=found.folder, settings=found.settings, predicted=found.made)
    show((), failures=[failure._asdict() for failure in failures])
    if totals is not None:
        frames = f" and {count_of(totals.frames, 'frame')}" if totals.frames else ""
        numbers = f"{count_of(totals.detections, 'detection')}, {count_of(len(failures), 'failure')}"
        before = max(totals.pictures + totals.frames - found.made, 0)
        show(
            [
                f"{count_of(totals.pictures, 'image')}{frames}, {numbers}",
                f"  {found.made} predicted in this run, {before} in earlier ones",
            ],
            images=totals.pictures,
            frames=totals.frames,
            detections=totals.detections,
        )
        written(*(found.folder / name for name in files))
        written(*(found.folder / kind for kind in views if (found.folder / kind).is_dir()))
    for failure in failures:
        _tell(one_line(f"failed: {failure.name}: {failure.error}: {failure.message}"))
    if found.signal is not None:
        interrupted(f"interrupted after {count_of(found.made, 'input')}: run the same command again to resume")
        return 128 + found.signal
    if failures:
        error(
            "ImageError", f"{count_of(len(failures), 'input')} could not be used: see {found.folder / 'failures.json'}"
        )
        return 5
    return 0


def batch(found: "BatchRun") -> int:
    """Print the outcome of a run on a cluster and the first failures; return the exit code."""
    show((), folder=found.output, predicted=found.made)
    if found.counts is None:
        interrupted("interrupted: run the same command again to resume")
        return 128 + (found.signal or 0)
    counts = found.counts
    numbers = f"{count_of(counts.rows, 'row')}, {count_of(counts.failures, 'failure')}"
    show(
        [
            f"{count_of(counts.pictures, 'image')}, {numbers}",
            f"  {found.made} predicted in this run, {counts.pictures - counts.missing - found.made} in earlier ones",
        ],
        images=counts.pictures,
        rows=counts.rows,
        failed=counts.failures,
        failures=[{"path": path, "error": kind, "message": message} for path, kind, message in found.failures],
    )
    for path, kind, message in found.failures:
        _tell(one_line(f"failed: {path}: {kind}: {message}"))
    if counts.missing or counts.doubled:
        error(
            "OutputError",
            f"images without a row: {counts.missing}, doubled rows: {counts.doubled}, so there is no "
            f"_SUCCESS in {found.output}: run the same command again, into a new folder if rows are doubled",
        )
        return 1
    written(found.output)
    if counts.failures:
        error("ImageError", f"{count_of(counts.failures, 'image')} could not be used: see the errors in the rows")
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

    names = ("level", "kind", "where", "message") if rows else ("level", "kind", "count", "first")
    layout = "{level:<7}  {kind:<18}  {where}: {message}" if rows else "{level:<7}  {kind:<18}  {count:>6}  {first}"
    table = [dict(zip(names, row, strict=True)) for row in (table_rows(found) if rows else summary(found))]
    bad = has_errors(found)
    outcome = f"{dataset}: {'cannot be trained on as it is' if bad else 'can be trained on'}"
    show(
        [*(layout.format(**row) for row in table), outcome],
        dataset=dataset,
        can_be_trained_on=not bad,
        findings=table,
    )
    if bad:
        _session.note_error("DatasetError", outcome)
    return 1 if bad else 0
