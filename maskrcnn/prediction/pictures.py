"""The pictures of a run: finds those that are done, draws missing views, and predicts the rest."""

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
from runtime.pictures.read import ImageSource, read_image


@dataclass
class _Pending:
    source: Source
    mark: Stamp
    pixels: npt.NDArray[np.uint8] | None = None  # [H, W, 3] RGB, once decoded, if views are drawn on them


class PictureRun:
    """Predicts pictures.

    Attributes:
        done: Pictures whose document and views are complete.
        made: Number of pictures predicted by this run.
        failures: Pictures that could not be used.
    """

    def __init__(self, job: Job) -> None:
        self.done: list[Source] = []
        self.made = 0
        self.failures: list[Failure] = []
        self._job = job

    def run(self, sources: Sequence[Source]) -> None:
        """Predict and draw what is missing; end early if the job is stopped."""
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
            raise ImageError(f"{source.name!r} changed during the run: predict it again")
        write_picture_views(self._job.folder, source, views, pixels, document["detections"])

    def _predict(self, pending: Sequence[_Pending], total: int) -> None:
        if not pending or self._job.stopped():
            return
        done = total - len(pending)
        self._job.progress("pictures", done, total)
        with closing(self._job.predict(pending, self._image_of)) as results:
            for picture, found in results:
                if isinstance(found, Exception):
                    self._fail(picture.source, found)
                else:
                    self._save(picture, found)
                picture.pixels = None
                done += 1
                self._job.progress("pictures", done, total)

    def _image_of(self, picture: _Pending) -> ImageSource:
        """Return what to predict. If there are views to draw, the picture is decoded here, once for both."""
        if not self._job.views:
            return picture.source.path
        picture.pixels = read_image(picture.source.path, max_pixels=self._job.max_pixels)
        return Image.fromarray(picture.pixels)  # networks with one channel do not take arrays with three

    def _save(self, picture: _Pending, found: dict[str, Any]) -> None:
        """Write the views, then the document: if it exists, they do."""
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
