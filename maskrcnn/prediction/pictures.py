"""The pictures of a run: which are done, which lack views, and which are to be predicted."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.prediction.documents import Stamp, read_document, stamp, write_document
from maskrcnn.prediction.job import Job
from maskrcnn.prediction.sources import Failure, Source
from maskrcnn.prediction.views import write_picture_views
from runtime.errors import ImageError
from runtime.pictures.letterbox import Letterbox
from runtime.pictures.read import read_image


@dataclass
class _Pending:
    source: Source
    mark: Stamp
    pixels: npt.NDArray[np.uint8] | None = None  # [H, W, 3] RGB, once decoded, if views are drawn on them


class PictureRun:
    """Predicts pictures.

    Attributes:
        done: Those that have a document and the views that were asked for.
        made: How many were predicted in this run.
        failures: Those that could not be used, so far.
    """

    def __init__(self, job: Job) -> None:
        self.done: list[Source] = []
        self.made = 0
        self.failures: list[Failure] = []
        self._job = job

    def run(self, sources: Sequence[Source]) -> None:
        """Predict what is not done; ends early when the job is stopped.

        Raises:
            OutputError: A result cannot be written.
        """
        pending: list[_Pending] = []
        lacking: list[tuple[Source, list[str]]] = []
        for source in sources:
            try:
                mark = stamp(source)
            except ImageError as error:
                self._fail(source, error)
                continue
            views = [kind for kind in self._job.views if not self._job.folder.view(kind, source).exists()]
            if read_document(self._job.folder.document(source), mark, self._job.run) is None:
                pending.append(_Pending(source, mark))
            elif views:
                lacking.append((source, views))
            else:
                self.done.append(source)
        self._make_views(lacking)
        self._predict(pending, len(sources))

    def _make_views(self, lacking: Sequence[tuple[Source, list[str]]]) -> None:
        for number, (source, views) in enumerate(lacking):
            if self._job.stopped():
                return
            self._job.progress("views", number, len(lacking))
            try:
                self._add_views(source, views)
            except ImageError as error:
                self._fail(source, error)
            else:
                self.done.append(source)
        if lacking:
            self._job.progress("views", len(lacking), len(lacking))

    def _add_views(self, source: Source, views: Sequence[str]) -> None:
        document = read_document(self._job.folder.document(source), stamp(source), self._job.run)
        pixels = read_image(source.path, max_pixels=self._job.max_pixels)
        if document is None or document["image_size"] != list(pixels.shape[:2]):
            raise ImageError(f"{source.name!r} was changed during the run: predict it again")
        write_picture_views(self._job.folder, source, views, pixels, document["detections"])

    def _predict(self, pending: Sequence[_Pending], total: int) -> None:
        if not pending or self._job.stopped():
            return
        done = total - len(pending)
        self._job.progress("pictures", done, total)
        with closing(self._job.predict(pending, self._prepare)) as results:
            for picture, found in results:
                if isinstance(found, Exception):
                    self._fail(picture.source, found)
                else:
                    self._save(picture, found)
                picture.pixels = None
                done += 1
                self._job.progress("pictures", done, total)

    def _prepare(self, picture: _Pending) -> tuple[Letterbox, npt.NDArray[np.uint8]]:
        """Decode a picture, once: the views are drawn on the same pixels."""
        if not self._job.views:
            return self._job.predictor.prepare(picture.source.path)
        picture.pixels = read_image(picture.source.path, max_pixels=self._job.max_pixels)
        # As a PIL image it suits networks of any channels that files suit.
        return self._job.predictor.prepare(Image.fromarray(picture.pixels))

    def _save(self, picture: _Pending, found: dict[str, Any]) -> None:
        """Write views first and the document last: where it exists, they do."""
        folder, source = self._job.folder, picture.source
        folder.forget(source)
        if picture.pixels is not None:
            write_picture_views(folder, source, self._job.views, picture.pixels, found["detections"])
        write_document(folder.document(source), source, picture.mark, self._job.run, found)
        self.done.append(source)
        self.made += 1

    def _fail(self, source: Source, error: Exception) -> None:
        self._job.folder.forget(source)
        self.failures.append(Failure.of(source, error))
