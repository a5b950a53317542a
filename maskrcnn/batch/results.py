"""`maskrcnn results`: the rows of a run as the COCO file or the table that `maskrcnn predict` writes."""

import heapq
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskrcnn.batch.folder import SUCCESS_FILE, BatchFolder
from maskrcnn.batch.sources import file_system
from maskrcnn.errors import ArgumentError, ConfigError
from maskrcnn.prediction.output_folder import NAMES_FILE, ROWS_FILE, RUN_FILE
from maskrcnn.prediction.results import Totals, write_entries
from maskrcnn.prediction.rows import require_arrow, stored_detections
from maskrcnn.prediction.settings import RunSettings
from runtime.atomic import atomic_write
from runtime.json_file import parse_json


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
    run = BatchFolder(system, path, folder)
    settings = _settings(run)
    names = run.row_files()
    if not names or (run.read(SUCCESS_FILE) is None and names != [ROWS_FILE]):
        raise ConfigError(f"{folder} has no complete run in Parquet: run the same 'maskrcnn predict' command again")
    with (
        atomic_write(output, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as to,
    ):
        csv = output.suffix.lower() == ".csv"
        return write_entries(_entries(run), settings, None if csv else to, to if csv else None)


def _settings(run: BatchFolder) -> RunSettings:
    content = run.read(RUN_FILE)
    try:
        return RunSettings.from_dict(parse_json(b"" if content is None else content))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{run.shown} has no {RUN_FILE} of a prediction run: expected the folder of one") from error


def _entries(run: BatchFolder) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and document of each image that was predicted."""
    names = _names(run)
    for row in sorted_rows(run):
        path = row["path"]
        name = next((name for known, name in names if known == path), path.rpartition("/")[2])
        if row["error"] is None:
            document = {"image_size": [row["height"], row["width"]], "device": row["device"]}
            yield name, document | {"detections": stored_detections(row)}


def _names(run: BatchFolder) -> Iterator[tuple[str, str]]:
    """Yield path and name of all images, sorted by path."""
    content = run.read(NAMES_FILE)
    if content is None:
        return
    for batch in require_arrow().ipc.open_file(content).read_all().to_batches(10_000):
        yield from zip(batch["path"].to_pylist(), batch["name"].to_pylist(), strict=True)


def sorted_rows(run: BatchFolder) -> Iterator[dict[str, Any]]:
    """Yield all rows by path. Each file holds a range of paths, so few of them are in memory at a time.

    Raises:
        ConfigError: An image has two rows, or a file cannot be read.
    """
    groups = sorted(_groups(run), key=lambda group: group[0])
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
            push(iter(_read_group(run, name, group)))
        path, _, row, rows = heapq.heappop(waiting)
        if path == last:
            raise ConfigError(f"{run.shown} has two rows for {path!r}: expected one per image")
        last = path
        yield row
        push(rows)


def _groups(run: BatchFolder) -> Iterator[tuple[str, str, int]]:
    """Yield the first path of each row group, its file and its number."""
    for name in run.row_files():
        with _opened(run, name) as file:
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, ["path"])["path"]
                if len(column):
                    yield min(column.to_pylist()), name, group


def _read_group(run: BatchFolder, name: str, group: int) -> list[dict[str, Any]]:
    with _opened(run, name) as file:
        rows: list[dict[str, Any]] = file.read_row_group(group).sort_by("path").to_pylist()
    return rows


def _opened(run: BatchFolder, name: str) -> Any:
    import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

    try:
        return pq.ParquetFile(run.system.open_input_file(f"{run.path}/{name}"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{run.shown} has a damaged file of rows, {name}: {reason}") from error
