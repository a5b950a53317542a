"""The worker of a batch: tables of encoded images in, tables of rows out."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn.prediction.rows import Marks, failed_row, found_row, require_arrow, row_table
from maskrcnn.prediction.settings import RunSettings, model_digest
from runtime.engines.options import EngineOptions
from runtime.errors import ArtifactError, ImageError, InputError
from runtime.output.formats import to_document
from runtime.pictures.header import shown_path
from runtime.pictures.letterbox import Letterbox, Pixels, ResizePolicy
from runtime.predictor import Predictor
from runtime.stream import Outputs, Work, stream_each

_USUAL_SIDE = 1024  # of images for models without a largest size of their own


class _Picture(NamedTuple):
    path: str
    content: bytes | None
    digest: str | None
    error: str | None  # why it could not be read


class PredictActor:
    """A predictor in one process of a pipeline, called with tables of images.

    For Ray Data's `map_batches` with `batch_format="pyarrow"`; Spark and Dask can call it too, see docs/scaling.md. The
    engine is opened and warmed up when it is made, so that a model that cannot be used fails there, with its own error.

    Args:
        model: An `.onnx` file or SavedModel folder, on this machine; or the bytes of an `.onnx` file.
        digest: What `maskrcnn.prediction.settings.model_digest` gave for the model on another machine. If the one here
            differs, it is refused: workers of one run must have one model. None: any.
        threads: Threads of the engine. Each worker sees all cores of its machine, so give what it may use of them.
        batch_size: Most images of one input size that the network runs together.
        device: As for `Predictor`.
        score_threshold: Lowest score of a detection; None for the model's.
        nms_threshold: Largest IoU of two detections of one class; None for the model's.
        classes: Names of the classes to keep; empty keeps all.
        max_pixels: Most pixels of an image; None for 100 million.
        value_range: As for `Predictor`.
        bands: As for `Predictor`.

    Attributes:
        settings: What the rows depend on.

    Raises:
        ArtifactError: The model cannot be used, or differs from that of `digest`.
        MissingPackageError: The engine or pyarrow is not installed.
        DeviceError: The device cannot be used.
        InputError: An argument is out of range, or the model has no class of that name.
    """

    def __init__(  # noqa: PLR0913  (one argument per setting)
        self,
        model: str | Path | bytes,
        *,
        digest: str | None = None,
        threads: int = 1,
        batch_size: int = 1,
        device: str = "auto",
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        classes: Sequence[str] = (),
        max_pixels: int | None = None,
        value_range: tuple[float, ...] | None = None,
        bands: tuple[int, ...] | None = None,
    ) -> None:
        require_arrow()
        self._predictor = Predictor(
            model,
            device,
            score_threshold=score_threshold,
            nms_threshold=nms_threshold,
            max_pixels=max_pixels,
            value_range=value_range,
            bands=bands,
            remember_image=False,
            engine=EngineOptions(threads=threads),
        )
        found = model_digest(self._predictor.path)
        if digest not in (None, found):
            raise ArtifactError(
                f"{model if isinstance(model, str | Path) else 'the model'} on this machine has SHA-256 {found[:12]}, "
                f"where the run was started it is {str(digest)[:12]}: put the same file on all machines"
            )
        names = self._predictor.class_names
        unknown = [name for name in classes if name not in names[1:]]
        if unknown:
            raise InputError(f"the model has no class {unknown[0]!r}; it has {', '.join(names[1:])}")
        self._classes = tuple(sorted(set(classes))) or None
        self.settings = RunSettings(
            model=found,
            class_names=names,
            score_threshold=self._predictor.score_threshold,
            nms_threshold=self._predictor.nms_threshold,
            classes=self._classes,
            value_range=self._predictor.value_range,
            bands=self._predictor.bands,
        )
        self._marks = Marks.of(self.settings)
        self._batch_size = batch_size
        self._predictor.warm_up([_largest_size(self._predictor.metadata.resize)], batch_size)

    def __call__(self, table: Any) -> Any:
        """Predict images.

        Args:
            table: A `pyarrow.Table` with `path` (string) and `bytes` (binary), as `ray.data.read_binary_files` with
                `include_paths=True` makes it, and perhaps `error` (string): why an image could not be read.

        Returns:
            A `pyarrow.Table` with one row per image, in order; see docs/scaling.md. An image that cannot be used, or
            for which the engine fails also when it runs alone, has `error` and `message`.
        """
        work: Work[_Picture, dict[str, Any]] = Work(
            self._prepare, self._predictor.run, self._finish, self._batch_size, 4 * self._batch_size
        )
        streamed = stream_each(work, _pictures(table))
        with closing(streamed) as results:
            rows = [self._row(picture, found) for picture, found in results]
        return row_table(rows)

    def close(self) -> None:
        """Release the engine."""
        self._predictor.close()

    def _prepare(self, picture: _Picture) -> tuple[Letterbox, Pixels]:
        if picture.content is None:
            raise ImageError(picture.error or f"{picture.path!r} has no bytes")
        return self._predictor.prepare(picture.content)

    def _finish(self, outputs: Outputs, letterbox: Letterbox) -> dict[str, Any]:
        found = self._predictor.finish(outputs, letterbox)
        return to_document(found if self._classes is None else found.filter(classes=self._classes))

    def _row(self, picture: _Picture, found: dict[str, Any] | Exception) -> dict[str, Any]:
        if isinstance(found, Exception):
            nameless = f"the image of {len(picture.content or b'')} bytes"
            message = str(found).replace(nameless, shown_path(picture.path))
            return failed_row(picture.path, picture.digest, type(found).__name__, message, self._marks)
        return found_row(picture.path, picture.digest, found, self._marks)


def _pictures(table: Any) -> Iterator[_Picture]:
    errors = table["error"] if "error" in table.column_names else [None] * table.num_rows
    for path, content, error in zip(table["path"], table["bytes"], errors, strict=True):
        found = content.as_py()
        digest = None if found is None else hashlib.sha256(found).hexdigest()
        yield _Picture(path.as_py(), found, digest, error and error.as_py())


def _largest_size(resize: ResizePolicy) -> tuple[int, int]:
    """Return the size of an image that gives the largest input of a model, where there is one."""
    side = resize.max_dim or resize.min_dim or _USUAL_SIDE
    return (resize.short_side or 800, resize.long_side or 1333) if resize.mode == "short_side" else (side, side)


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes; 0 on Windows, where nothing is reserved."""
    if sys.platform == "win32":
        return 0
    import resource  # noqa: PLC0415  (not on Windows)

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
