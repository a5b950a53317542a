"""The folder of a batch, on a disk or in an object store: guarded, cleaned up after a kill, and counted.

Files of rows lie directly in it. Each is named after the attempt that wrote it, so that those of a killed attempt that
still come after its successor has looked are told apart: they are removed, because the successor predicts their images.
"""

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from maskrcnn.batch.sources import file_system, is_url
from maskrcnn.prediction.output_folder import NAMES_FILE, RUN_FILE, check_contents
from maskrcnn.prediction.rows import (
    MARK_COLUMNS,
    WRITING,
    Marks,
    arrow_errors,
    names_content,
    names_table,
    require_arrow,
    row_schema,
    row_table,
)
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.runs.folder_lock import locked
from runtime.atomic import check_output
from runtime.errors import OutputError, ToolkitError
from runtime.json_file import parse_json
from runtime.one_line import one_line

SUCCESS_FILE, CHECKPOINT = "_SUCCESS", ".checkpoint"
_ROWS, _PENDING, _NEW = ".parquet", ".pending.parquet", ".new"
_READERS = 16  # threads: in an object store, it is the number of files that takes time
_LONGEST_REASON = 200


class _ForeignError(OutputError):
    """A Parquet file in the folder is not of this run."""


class Counts(NamedTuple):
    """What a scan of the rows found.

    Attributes:
        pictures: Images of the command.
        rows: Rows in the folder, also of images of earlier commands.
        failures: Images of the command whose row has an error.
        missing: Images of the command without a row.
        doubled: Rows too many: of an image that has another row.
    """

    pictures: int
    rows: int
    failures: int
    missing: int
    doubled: int


class BatchFolder:
    """The folder of a run in progress.

    Args:
        system: A `pyarrow.fs.FileSystem`.
        path: In that.
        shown: The path or URL as it was given.
        settings: Of the run; None for those stored in the folder.

    Raises:
        OutputError: It has no settings, and none are given.
    """

    def __init__(self, system: Any, path: str, shown: str, settings: RunSettings | None = None) -> None:
        self.system, self.path, self.shown = system, path.rstrip("/"), shown
        self.settings = self._stored_settings() if settings is None else settings
        self.attempt = secrets.token_hex(4)
        self._known: set[str] = set()

    def begin(self) -> set[str]:
        """Remove what a killed attempt left half-written; return the paths of the images that have a row."""
        self._delete(SUCCESS_FILE)
        for info in self._list(""):
            if info.base_name.startswith(".") and info.base_name.endswith(_NEW):
                self._delete(info.base_name)
        self._remove_torn()
        self._known = set(self.row_files())
        return self._paths(self._known)

    def end_pass(self) -> set[str]:
        """Remove what this attempt left half-written, and rows of a dead one; return the paths that have a row."""
        self._remove_torn()
        files = set(self.row_files())
        ours = {name for name in files if name in self._known or name.startswith(self.attempt)}
        for name in files - ours:
            self._delete(name)
        return self._paths(ours)

    def count(self, names: dict[str, str]) -> Counts:
        """Count the rows, in the files themselves."""
        rows, failures, found = 0, 0, set[str]()
        for table in self._tables(self.row_files(), ["path", "error"]):
            paths = table["path"].to_pylist()
            rows += len(paths)
            found.update(paths)
            failed = table.filter(table["error"].is_valid())["path"].to_pylist()
            failures += sum(path in names for path in failed)
        missing = len(names.keys() - found)
        return Counts(len(names), rows, failures, missing, rows - len(found))

    def add_rows(self, rows: list[dict[str, Any]], number: int) -> None:
        """Write a file of rows as a whole."""
        import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

        sink = require_arrow().BufferOutputStream()
        pq.write_table(row_table(sorted(rows, key=lambda row: row["path"])), sink, **WRITING)
        self._write(f"{self.attempt}-single-{number:06}{_ROWS}", sink.getvalue().to_pybytes())

    def failures(self, most: int, names: Collection[str] | None = None) -> list[tuple[str, str, str]]:
        """Return path, error and message of the first images that could not be used, perhaps only of some."""
        found: list[tuple[str, str, str]] = []
        for table in self._tables(self.row_files(), ["path", "error", "message"]):
            failed = table.filter(table["error"].is_valid()).to_pylist()
            found += [
                (row["path"], row["error"], row["message"]) for row in failed if names is None or row["path"] in names
            ]
            found = sorted(found)[:most]
        return found

    def rows_of_new_files(self, seen: dict[str, int]) -> int:
        """Return the number of rows in files that this attempt has finished; `seen` remembers them between calls."""
        import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

        for name in self.row_files():
            if name not in seen and name.startswith(self.attempt):
                try:
                    with self.system.open_input_file(f"{self.path}/{name}") as file:
                        seen[name] = pq.ParquetFile(file).metadata.num_rows
                except (OSError, ValueError):  # being written
                    continue
        return sum(seen.values())

    def add_names(self, names: dict[str, str]) -> None:
        """Store the names of images, beside those of earlier commands; one that an earlier image has gets a mark."""
        stored = self.names()
        columns = [[], []] if stored is None else [stored[name].to_pylist() for name in ("path", "name")]
        known: dict[str, str] = dict(zip(*columns, strict=True))
        new = sorted(names.keys() - known.keys())
        if new:
            taken = {name.casefold() for name in known.values()}
            for path in new:
                known[path] = _unlike(names[path], path, taken)
                taken.add(known[path].casefold())
            self._write(NAMES_FILE, names_content(known))

    def names(self) -> Any:
        """Return the table of the names of images, sorted by path; None if none are stored.

        Raises:
            OutputError: The file is damaged.
        """
        stored = self.read(NAMES_FILE)
        try:
            return None if stored is None else names_table(stored)
        except ValueError as error:
            raise OutputError(
                f"{self.shown}/{NAMES_FILE} is damaged ({error}): delete it, and run the commands of this folder again"
            ) from error

    def _stored_settings(self) -> RunSettings:
        content = self.read(RUN_FILE)
        try:
            return RunSettings.from_dict(parse_json(b"" if content is None else content))
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{self.shown} has no {RUN_FILE} of a prediction run: expected the folder of one"
            ) from error

    def finish(self, counts: Counts) -> None:
        """Write `_SUCCESS`: all images have one row."""
        self._write(SUCCESS_FILE, (json.dumps(counts._asdict()) + "\n").encode())

    def guard(self, settings: RunSettings, *, force: bool) -> None:
        """Refuse a folder as `check` does, else record the settings in it; rows of other settings are removed."""
        if self.check(settings, force=force):
            files = self.row_files()
            for name in files:
                self._require_not_foreign(name)
            for name in [SUCCESS_FILE, *files, NAMES_FILE]:
                self._delete(name)
            self.system.delete_dir_contents(f"{self.path}/{CHECKPOINT}", missing_dir_ok=True)
        text = json.dumps(settings.to_dict(), ensure_ascii=False, indent=2) + "\n"
        self._write(RUN_FILE, text.encode())

    def check(self, settings: RunSettings, *, force: bool) -> bool:
        """Return whether the folder has rows of other settings, which `force` allows to replace.

        Raises:
            OutputError: See `check_contents`; or it holds the results of a run without Ray.
        """
        names = [info.base_name for info in self._list("")]
        if "detections" in names:
            raise OutputError(f"{self.shown} holds results of a run without --ray: choose another folder")
        stored = self.read(RUN_FILE)
        try:
            content = None if stored is None else parse_json(stored)
        except ValueError:
            content = None
        return check_contents(self.shown, content, names, settings, force=force)

    def _remove_torn(self) -> None:
        """Remove the files whose writing is not recorded as finished, and the record that it began."""
        begun = [info.base_name for info in self._list(CHECKPOINT) if info.base_name.endswith(_PENDING)]
        heads = tuple(name.removesuffix(_PENDING) + "-" for name in begun)
        for name in self.row_files():
            if heads and name.startswith(heads):
                self._delete(name)
        for name in begun:
            self._delete(f"{CHECKPOINT}/{name}")

    def row_files(self) -> list[str]:
        """Return the names of the files of rows."""
        return [info.base_name for info in self._list("") if info.base_name.endswith(_ROWS)]

    def _list(self, folder: str) -> list[Any]:
        from pyarrow import fs  # noqa: PLC0415  (an extra)

        selector = fs.FileSelector(f"{self.path}/{folder}", allow_not_found=True)
        try:
            found: list[Any] = self.system.get_file_info(selector)
        except OSError as error:
            raise OutputError(f"cannot list {self.shown}: {_reason(error)}") from error
        return found

    def _paths(self, files: Collection[str]) -> set[str]:
        return {path for table in self._tables(files, ["path"]) for path in table["path"].to_pylist()}

    def _tables(self, files: Collection[str], columns: Sequence[str]) -> Iterator[Any]:
        """Yield columns of each of these files."""

        def read(name: str) -> Any:
            with self.opened_rows(name) as file:
                return self.checked(name, file.read([*dict.fromkeys((*columns, *MARK_COLUMNS))]))

        with ThreadPoolExecutor(_READERS, "batch-rows") as readers:
            yield from readers.map(read, sorted(files))

    @contextmanager
    def opened_rows(self, name: str) -> Iterator[Any]:
        """Open a file of rows as a `pyarrow.parquet.ParquetFile` for the time of a block that reads it.

        Raises:
            OutputError: It is damaged, or has other columns.
        """
        import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

        try:
            with (
                self.system.open_input_file(f"{self.path}/{name}") as file,
                pq.ParquetFile(file, page_checksum_verification=True) as opened,
            ):
                if not opened.schema_arrow.equals(row_schema()):
                    raise _ForeignError(f"{self.shown}/{name} has no rows of a prediction run: move it away")
                yield opened
        except ToolkitError:
            raise
        except arrow_errors() as error:
            raise OutputError(
                f"{self.shown} has a damaged file of rows, {name} ({_reason(error)}): delete that file, and run the "
                "same command again"
            ) from error

    def checked(self, name: str, table: Any) -> Any:
        """Return a table from a file of rows, with the columns of the marks; call it in the block that reads the file.

        Raises:
            OutputError: It has rows of another run.
            ValueError: Its content is damaged.
        """
        table.validate(full=True)
        for column, expected in zip(MARK_COLUMNS, Marks.of(self.settings), strict=True):
            if any(found.as_py() != expected for found in table[column].unique()):
                raise _ForeignError(f"{self.shown}/{name} has rows of another run ({column} differs): move it away")
        if "path" in table.column_names and table["path"].null_count:
            raise _ForeignError(f"{self.shown}/{name} has rows without a path: move it away")
        return table

    def _require_not_foreign(self, name: str) -> None:
        """Raise OutputError for a Parquet file that is not ours to remove; a damaged one is."""
        try:
            with self.opened_rows(name):
                pass
        except _ForeignError:
            raise
        except OutputError:
            return

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none, or no folder."""
        try:
            with self.system.open_input_file(f"{self.path}/{name}") as file:
                content: bytes = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise OutputError(f"cannot read {self.shown}/{name}: {_reason(error)}") from error
        return content

    def _write(self, name: str, content: bytes) -> None:
        """Write a file as a whole: a rename puts it in place, and object stores show no half ones."""
        temporary = f"{self.path}/.{name}{_NEW}"
        try:
            with self.system.open_output_stream(temporary) as file:
                file.write(content)
            self.system.move(temporary, f"{self.path}/{name}")
        except OSError as error:
            with suppress(OSError):
                self.system.delete_file(temporary)
            raise OutputError(f"cannot write {self.shown}/{name}: {error}") from error

    def _delete(self, name: str) -> None:
        try:
            self.system.delete_file(f"{self.path}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot remove {self.shown}/{name}: {error}") from error


def _unlike(name: str, path: str, taken: Collection[str]) -> str:
    """Return the name of an image: with a mark, as in runs of one machine, if another image has it."""
    digest, number = hashlib.sha256(path.encode()).hexdigest(), 8
    suffix, found = PurePosixPath(name).suffix, name
    while found.casefold() in taken:
        found, number = f"{name.removesuffix(suffix)}~{digest[:number]}{suffix}", number + 8
    return found


def _reason(error: BaseException) -> str:
    return one_line(error)[:_LONGEST_REASON]


@contextmanager
def open_batch(output: str, settings: RunSettings, *, force: bool) -> Iterator[BatchFolder]:
    """Create or reopen the folder of a run and, on a disk, lock it for the time of a block.

    Raises:
        OutputError: It holds other things (see `BatchFolder.guard`), cannot be written, or is in use.
    """
    system, path = file_system(output)
    folder = BatchFolder(system, path, output, settings)
    if not is_url(output):
        check_output(path, overwrite=True, directory=True)
    folder.check(settings, force=force)  # before a file of a lock appears in it
    with nullcontext() if is_url(output) else locked(Path(path), "predict"):
        try:
            system.create_dir(path, recursive=True)
        except OSError as error:
            raise OutputError(f"cannot write {output}: {error}") from error
        folder.guard(settings, force=force)
        yield folder
