"""`maskrcnn results`: the rows of a run as the COCO file or the table that `maskrcnn predict` writes."""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskrcnn.batch.folder import SUCCESS_FILE, BatchFolder
from maskrcnn.batch.sources import file_system
from maskrcnn.errors import ArgumentError, ConfigError
from maskrcnn.prediction.output_folder import NAMES_FILE, ROWS_FILE
from maskrcnn.prediction.results import Totals, write_entries
from maskrcnn.prediction.rows import MARK_COLUMNS, stored_detections
from runtime.atomic import atomic_write
from runtime.errors import OutputError
from runtime.json_file import parse_json

_Group = tuple[str, str, int]  # first path of a row group, its file, its number


def write_row_results(folder: str, output: Path, *, overwrite: bool = False) -> Totals:
    """Write the rows of a complete run, sorted by path, to one file. A few rows at a time are in memory.

    Args:
        folder: Folder or URL of a run with `--ray` or `--format parquet`.
        output: The file: `.json` for COCO JSON, `.csv` for a table.
        overwrite: Whether an existing file may be replaced.

    Raises:
        ArgumentError: The file has another suffix.
        ConfigError: There is no run, it is not complete, or its rows are damaged or doubled.
        OutputError: The file exists or cannot be written.
        MissingPackageError: pyarrow is not installed.
    """
    if output.suffix.lower() not in (".json", ".csv"):
        raise ArgumentError(f"the output is {str(output)!r}: expected a file that ends in .json or .csv")
    system, path = file_system(folder)
    with _reading():
        run = BatchFolder(system, path, folder)
        names = _complete(run)
        groups = sorted(_groups(run), key=lambda group: group[0])
    with (
        atomic_write(output, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as to,
    ):
        csv = output.suffix.lower() == ".csv"
        return write_entries(_entries(run, names, groups), run.settings, None if csv else to, to if csv else None)


def _complete(run: BatchFolder) -> Any:
    """Return the names of a run; raise ConfigError if it has other rows than it recorded when it ended."""
    files, success = run.row_files(), run.read(SUCCESS_FILE)
    if not files or (success is None and files != [ROWS_FILE]):
        raise ConfigError(f"{run.shown} has no complete run in Parquet: run the same 'maskrcnn predict' command again")
    names = run.names()
    if names is None:
        raise ConfigError(f"{run.shown} has no {NAMES_FILE}: run the commands of this folder again")
    if success is None:  # the file was put in place as a whole
        return names
    try:
        recorded = parse_json(success)["rows"]
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"{run.shown}/{SUCCESS_FILE} is damaged: run the same 'maskrcnn predict' command again"
        ) from error
    rows = 0
    for name in files:
        with run.opened_rows(name) as file:
            rows += file.metadata.num_rows
    if rows != recorded:
        raise ConfigError(
            f"{run.shown} has {rows} rows, and {recorded!r} when its run ended: run the same 'maskrcnn predict' "
            "command again"
        )
    return names


def _entries(run: BatchFolder, table: Any, groups: Sequence[_Group]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and document of each image that was predicted; one without a name has its path."""
    names = _names(table)
    known = next(names, None)
    for row in sorted_rows(run, groups):
        path = row["path"]
        while known is not None and known[0] < path:
            known = next(names, None)
        if row["error"] is None:
            document = {"image_size": [row["height"], row["width"]], "device": row["device"]}
            name = path if known is None or known[0] != path else known[1]
            yield name, document | {"detections": stored_detections(row)}


def _names(table: Any) -> Iterator[tuple[str, str]]:
    """Yield path and name of all images, sorted by path."""
    for batch in table.to_batches(10_000):
        yield from zip(batch["path"].to_pylist(), batch["name"].to_pylist(), strict=True)


def sorted_rows(run: BatchFolder, groups: Sequence[_Group]) -> Iterator[dict[str, Any]]:
    """Yield all rows by path. Each file holds a range of paths, so few of them are in memory at a time.

    Raises:
        ConfigError: An image has two rows, or a file cannot be read.
    """
    waiting: list[tuple[str, int, dict[str, Any], Iterator[dict[str, Any]]]] = []
    numbers, upcoming, last = itertools.count(), 0, None

    def push(rows: Iterator[dict[str, Any]]) -> None:
        row = next(rows, None)
        if row is not None:
            heapq.heappush(waiting, (row["path"], next(numbers), row, rows))

    while waiting or upcoming < len(groups):
        while upcoming < len(groups) and (not waiting or groups[upcoming][0] <= waiting[0][0]):
            _, name, group = groups[upcoming]
            upcoming += 1
            with _reading():
                push(iter(_read_group(run, name, group)))
        path, _, row, rows = heapq.heappop(waiting)
        if path == last:
            raise ConfigError(f"{run.shown} has two rows for {path!r}: expected one per image")
        last = path
        yield row
        push(rows)


def _groups(run: BatchFolder) -> Iterator[_Group]:
    """Yield the first path of each row group, its file and its number."""
    for name in run.row_files():
        with run.opened_rows(name) as file:
            for group in range(file.num_row_groups):
                paths = run.checked(name, file.read_row_group(group, ["path", *MARK_COLUMNS]))["path"]
                if len(paths):
                    yield min(paths.to_pylist()), name, group


def _read_group(run: BatchFolder, name: str, group: int) -> list[dict[str, Any]]:
    with run.opened_rows(name) as file:
        rows: list[dict[str, Any]] = run.checked(name, file.read_row_group(group)).sort_by("path").to_pylist()
    return rows


@contextmanager
def _reading() -> Iterator[None]:
    """Raise ConfigError for a folder that cannot be read: here it is the input."""
    try:
        yield
    except OutputError as error:
        raise ConfigError(str(error)) from error
