"""The folder of a batch, on a disk or in an object store: guarded, cleaned up after a kill, and counted.

Files of rows lie directly in it. Each is named after the attempt that wrote it, so that those of a killed attempt that
still come after its successor has looked are told apart: they are removed, because the successor predicts their images.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn.batch.sources import file_system, is_url
from maskrcnn.prediction.output_folder import NAMES_FILE, RUN_FILE, check_contents
from maskrcnn.prediction.rows import names_content, read_names, require_arrow, row_schema, row_table
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.runs.folder_lock import locked
from runtime.atomic import check_output
from runtime.errors import OutputError
from runtime.json_file import parse_json

SUCCESS_FILE, CHECKPOINT = "_SUCCESS", ".checkpoint"
_ROWS, _PENDING, _NEW = ".parquet", ".pending.parquet", ".new"


class Counts(NamedTuple):
    """What a scan of the rows found.

    Attributes:
        pictures: Images of the command.
        rows: Rows in the folder, also of images of earlier commands.
        failures: Rows with an error.
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
    """

    def __init__(self, system: Any, path: str, shown: str) -> None:
        self.system, self.path, self.shown = system, path.rstrip("/"), shown
        self.attempt = secrets.token_hex(4)
        self._known: set[str] = set()

    def begin(self) -> set[str]:
        """Remove what a killed attempt left half-written; return the paths of the images that have a row."""
        self._delete(SUCCESS_FILE)
        self._remove_torn()
        self._known = set(self.row_files())
        return set(self._column("path"))

    def end_pass(self) -> set[str]:
        """Remove what this attempt left half-written, and rows of a dead one; return the paths that have a row."""
        self._remove_torn()
        for name in self.row_files():
            if name not in self._known and not name.startswith(self.attempt):
                self._delete(name)
        return set(self._column("path"))

    def count(self, names: dict[str, str]) -> Counts:
        """Count the rows, in the files themselves."""
        paths, errors = self._column("path"), self._column("error")
        distinct = set(paths)
        failures = sum(error is not None for error in errors)
        return Counts(len(names), len(paths), failures, len(names.keys() - distinct), len(paths) - len(distinct))

    def add_rows(self, rows: list[dict[str, Any]], number: int) -> None:
        """Write a file of rows as a whole."""
        import pyarrow.parquet as pq  # noqa: PLC0415  (an extra)

        sink = require_arrow().BufferOutputStream()
        pq.write_table(row_table(sorted(rows, key=lambda row: row["path"])), sink)
        self._write(f"{self.attempt}-single-{number:06}{_ROWS}", sink.getvalue().to_pybytes())

    def failures(self, most: int) -> list[tuple[str, str, str]]:
        """Return path, error and message of the first images that could not be used."""
        import pyarrow.compute as pc  # noqa: PLC0415  (an extra)

        table = self._scan(["path", "error", "message"], pc.field("error").is_valid()).sort_by("path").slice(0, most)
        return [(row["path"], row["error"], row["message"]) for row in table.to_pylist()]

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
        """Store the names of images, beside those of earlier commands."""
        stored = self.read(NAMES_FILE)
        known = {} if stored is None else read_names(stored)
        if not names.keys() <= known.keys():
            self._write(NAMES_FILE, names_content(names | known))

    def finish(self, counts: Counts) -> None:
        """Write `_SUCCESS`: all images have one row."""
        self._write(SUCCESS_FILE, (json.dumps(counts._asdict()) + "\n").encode())

    def guard(self, settings: RunSettings, *, force: bool) -> None:
        """Refuse a folder as `check` does, else record the settings in it; rows of other settings are removed."""
        if self.check(settings, force=force):
            for name in [*self.row_files(), NAMES_FILE, SUCCESS_FILE]:
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

        found: list[Any] = self.system.get_file_info(fs.FileSelector(f"{self.path}/{folder}", allow_not_found=True))
        return found

    def _column(self, name: str) -> list[Any]:
        found: list[Any] = self._scan([name])[name].to_pylist()
        return found

    def _scan(self, columns: list[str], wanted: Any = None) -> Any:
        from pyarrow import dataset  # noqa: PLC0415  (an extra)

        files = [f"{self.path}/{name}" for name in self.row_files()]
        if not files:
            return row_schema().empty_table().select(columns)
        try:
            found = dataset.dataset(files, row_schema(), "parquet", self.system)
            return found.to_table(columns, filter=wanted)
        except (ValueError, OSError) as error:
            raise OutputError(
                f"{self.shown} has a damaged file of rows ({' '.join(str(error).split())[:200]}): delete that file, "
                "and run the same command again"
            ) from error

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        try:
            with self.system.open_input_file(f"{self.path}/{name}") as file:
                content: bytes = file.read()
        except FileNotFoundError:
            return None
        return content

    def _write(self, name: str, content: bytes) -> None:
        """Write a file as a whole: a rename puts it in place, and object stores show no half ones."""
        try:
            temporary = f"{self.path}/.{name}{_NEW}"
            with self.system.open_output_stream(temporary) as file:
                file.write(content)
            self.system.move(temporary, f"{self.path}/{name}")
        except OSError as error:
            raise OutputError(f"cannot write {self.shown}/{name}: {error}") from error

    def _delete(self, name: str) -> None:
        try:
            self.system.delete_file(f"{self.path}/{name}")
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot remove {self.shown}/{name}: {error}") from error


@contextmanager
def open_batch(output: str, settings: RunSettings, *, force: bool) -> Iterator[BatchFolder]:
    """Create or reopen the folder of a run and, on a disk, lock it for the time of a block.

    Raises:
        OutputError: It holds other things (see `BatchFolder.guard`), cannot be written, or is in use.
    """
    system, path = file_system(output)
    folder = BatchFolder(system, path, output)
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
