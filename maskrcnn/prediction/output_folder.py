"""The folder of a run: what lies where, who may write to it, and what its results depend on."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import Source
from runtime.atomic import atomic_write, check_output
from runtime.errors import MissingPackageError, OutputError

RUN_FILE, RESULTS_FILE, TABLE_FILE, FAILURES_FILE = "run.json", "results.json", "results.csv", "failures.json"
VIEWS = ("overlay", "splash")

# Errors of file systems that have no locks: a run goes on without one.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


@dataclass(frozen=True)
class OutputFolder:
    """Paths below the folder of a run."""

    path: Path

    def document(self, source: Source) -> Path:
        """What was found in a source: JSON of a picture, JSON lines of a video."""
        return self.path / "detections" / f"{source.name}.json{'l' if source.is_video else ''}"

    def view(self, kind: str, source: Source) -> Path:
        """The drawn picture or video of a source; `kind` is one of `VIEWS`."""
        return self.path / kind / source.view_name

    def forget(self, source: Source) -> None:
        """Remove the document of a source, then its views: no document ever stands beside a view of another one."""
        _unlink(self.document(source))
        self.forget_views(source)

    def forget_views(self, source: Source) -> None:
        """Remove the views of a source."""
        for kind in VIEWS:
            _unlink(self.view(kind, source))

    def forget_results(self) -> None:
        """Remove what stands for the whole of a run: it is there again when the run has come to its end."""
        for name in (RESULTS_FILE, TABLE_FILE, FAILURES_FILE):
            _unlink(self.path / name)


@contextmanager
def open_output(folder: Path, settings: RunSettings, *, force: bool) -> Iterator[OutputFolder]:
    """Take a folder for a run, for the time of a block; a run that was cut off there is gone on with.

    Args:
        folder: Made where it does not exist.
        settings: Of the run.
        force: Whether a folder with results of other settings is taken over; documents say which they were made with.

    Raises:
        OutputError: It holds results of other settings, or other things, or cannot be written, or is in use.
    """
    check_output(folder, overwrite=True, directory=True)
    _check_contents(folder, settings, force)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    with _locked(folder):
        _check_contents(folder, settings, force)
        with atomic_write(folder / RUN_FILE, overwrite=True) as path:
            path.write_text(json.dumps(settings.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        yield OutputFolder(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the system releases the lock of a killed process."""
    try:
        import filelock  # noqa: PLC0415  (comes with the command line)
    except ModuleNotFoundError as error:
        if error.name != "filelock":
            raise
        raise MissingPackageError("filelock", "predict", "locking the folder of a run") from error
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise OutputError(f"{folder} is in use by another run: wait for it, or choose another folder") from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise OutputError(f"cannot lock {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _check_contents(folder: Path, settings: RunSettings, force: bool) -> None:
    """Raise for a folder that is not of this command or, without `force`, not of these settings."""
    if not folder.is_dir():
        return
    stored = None
    with suppress(OSError, ValueError):
        stored = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    if not (isinstance(stored, dict) and "model" in stored and "version" in stored):
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise OutputError(
                f"{folder} has other things in it and no {RUN_FILE} of a prediction: choose a new or empty folder"
            )
        return
    differences = settings.differences(stored)
    if differences and not force:
        raise OutputError(
            f"{folder} holds results of other settings ({'; '.join(differences)}): "
            "choose another folder, or predict all of it again with --force"
        )


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror}") from error
