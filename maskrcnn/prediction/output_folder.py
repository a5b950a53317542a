"""The folder of a run: its layout, its lock, and the settings that its results depend on."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import Source
from maskrcnn.runs.folder_lock import locked
from runtime.atomic import atomic_write, check_output, remove_abandoned_below
from runtime.errors import OutputError
from runtime.json_file import read_json_file

RUN_FILE, RESULTS_FILE, TABLE_FILE, FAILURES_FILE = "run.json", "results.json", "results.csv", "failures.json"
ROWS_FILE = "results.parquet"
# The names of images by path. The suffix keeps it out of `*.parquet`, the first letter out of what engines read.
NAMES_FILE = "_names.arrow"
DRAWN, LABELME = ("overlay", "splash"), "labelme"
VIEWS = (*DRAWN, LABELME)


@dataclass(frozen=True)
class OutputFolder:
    """Paths below the folder of a run; `labelme_names` has the name of the link to each image by that of its source."""

    path: Path
    labelme_names: Mapping[str, str] = field(default_factory=dict)

    def document(self, source: Source) -> Path:
        """Return the path of a document: JSON for a picture, JSON lines for a video."""
        return self.path / "detections" / _in_utf8(f"{source.name}.json{'l' if source.is_video else ''}")

    def view(self, kind: str, source: Source) -> Path:
        """Return the path of a view; `kind` is one of `VIEWS`."""
        if kind == LABELME:
            return self.labelme_image(source).with_suffix(".json")
        return self.path / kind / _in_utf8(source.view_name)

    def labelme_image(self, source: Source) -> Path:
        """Return the path of the link to an image beside its labelme file."""
        return self.path / LABELME / _in_utf8(self.labelme_names[source.name])

    def forget(self, source: Source) -> None:
        """Remove the document of a source, then its views, so that no document is ever next to an outdated view."""
        _unlink(self.document(source))
        self.forget_views(source)

    def forget_views(self, source: Source) -> None:
        """Remove the views of a source."""
        for kind in DRAWN:
            _unlink(self.view(kind, source))
        if source.name in self.labelme_names:
            _unlink(self.view(LABELME, source))
            _unlink(self.labelme_image(source))

    def forget_results(self) -> None:
        """Remove the files that only a complete run writes."""
        for name in (RESULTS_FILE, TABLE_FILE, ROWS_FILE, NAMES_FILE, FAILURES_FILE):
            _unlink(self.path / name)


def is_finished(folder: Path) -> bool:
    """Return whether the last run in a folder came to its end."""
    return (folder / RESULTS_FILE).exists() or (folder / ROWS_FILE).exists()


@contextmanager
def open_output(
    folder: Path, settings: RunSettings, *, force: bool, labelme_names: Mapping[str, str] | None = None
) -> Iterator[OutputFolder]:
    """Create or reopen the folder of a run, and lock it for the time of a block.

    Args:
        folder: Created if missing.
        settings: What the results depend on; stored in the folder.
        force: Accept a folder with results of other settings. Each document records the settings that it was made with.
        labelme_names: See `OutputFolder`.

    Raises:
        OutputError: The folder holds results of other settings or unrelated files, cannot be written, or is in use.
        MissingPackageError: filelock is not installed.
    """
    check_output(folder, overwrite=True, directory=True)
    _check_contents(folder, settings, force)
    with locked(folder, "predict"):
        _check_contents(folder, settings, force)
        remove_abandoned_below(folder)
        with atomic_write(folder / RUN_FILE, overwrite=True) as path:
            path.write_text(json.dumps(settings.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        yield OutputFolder(folder, labelme_names or {})


def _check_contents(folder: Path, settings: RunSettings, force: bool) -> None:
    """Raise unless the folder is new, empty, or of an earlier run (with the same settings, unless `force`)."""
    if not folder.is_dir():
        return
    stored = None
    with suppress(OSError, ValueError):
        stored = read_json_file(folder / RUN_FILE)
    names = [path.name for path in folder.iterdir()]
    if any(name.endswith(".parquet") and name != ROWS_FILE for name in names):
        raise OutputError(f"{folder} holds results of a run with --ray: choose another folder")
    check_contents(folder, stored, names, settings, force=force)


def check_contents(folder: object, stored: object, names: Iterable[str], settings: RunSettings, *, force: bool) -> bool:
    """Return whether a folder has results of other settings.

    Args:
        folder: Its path, for messages.
        stored: The content of its `run.json`, if it has one.
        names: Of the files in it.
        settings: Of the run that is to write to it.
        force: Accept results of other settings.

    Raises:
        OutputError: It has such results and `force` is not given, or it has files of no run.
    """
    if not (isinstance(stored, dict) and "model" in stored and "version" in stored):
        if any(not name.startswith(".") for name in names):
            raise OutputError(
                f"{folder} has other files in it and no {RUN_FILE} of a prediction run: choose a new or empty folder"
            )
        return False
    differences = settings.differences(stored)
    if differences and not force:
        raise OutputError(
            f"{folder} holds results of other settings ({'; '.join(differences)}): "
            "choose another folder, or use --force to predict everything again"
        )
    return bool(differences)


def _in_utf8(name: str) -> str:
    """Return a name of a file as Python needs it to write it in UTF-8, also in a locale without letters."""
    return os.fsdecode(name.encode())


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror}") from error
