"""The pictures of a run: finds those that are done, draws missing views, and predicts the rest."""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.prediction.documents import Stamp, content_digest, read_document, stamp, write_document
from maskrcnn.prediction.job import MILLISECONDS, Job
from maskrcnn.prediction.output_folder import LABELME
from maskrcnn.prediction.sources import Failure, Source
from maskrcnn.prediction.views import write_labelme, write_picture_views
from runtime.errors import ImageError
from runtime.one_line import one_line, printable_path
from runtime.pictures.read import ImageSource, read_image

T = TypeVar("T")

# Threads that write results: compressing an overlay takes longer than predicting a small image.
_WRITERS = min(4, os.cpu_count() or 1)
_MOST_NAMED = 5  # classes in the line of an image
# Bytes of decoded images that wait for their views; beyond that, an image is decoded again when they are drawn.
_MOST_DECODED = 1 << 29


@dataclass
class _Pending:
    source: Source
    mark: Stamp
    before: Stamp | None = None  # when it was read
    content: str | None = None  # SHA-256 of the file, once it was read
    pixels: npt.NDArray[np.uint8] | None = None  # [H, W, 3] RGB, once decoded, if views are drawn on them


class PictureRun:
    """Predicts pictures.

    Attributes:
        done: Pictures whose document and views are complete.
        made: Number of pictures predicted by this run.
        failures: Pictures that could not be used.
        unusable: SHA-256 of those among them that were read, by path.
    """

    def __init__(self, job: Job) -> None:
        self.done: list[Source] = []
        self.made = 0
        self.failures: list[Failure] = []
        self.unusable: dict[str, str | None] = {}
        self._job = job
        self._drawn = tuple(kind for kind in job.views if kind != LABELME)
        self._decoded = 0
        self._decoded_lock = Lock()

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
        if document is None:
            raise ImageError(f"{source.name!r} changed during the run: predict it again")
        drawn = [kind for kind in views if kind != LABELME]
        if drawn:
            pixels = self._decode_again(source, document)
            write_picture_views(self._job.folder, source, drawn, pixels, document["detections"])
        if LABELME in views:
            write_labelme(self._job.folder, source, document["image_size"], document["detections"])

    def _predict(self, pending: Sequence[_Pending], total: int) -> None:
        if not pending or self._job.stopped():
            return
        before = total - len(pending)
        self._job.progress("images", before, total)
        writers = ThreadPoolExecutor(_WRITERS, "predict-write")
        # Of images in tiles, which may be huge, one is drawn before the next is read.
        ahead = _WRITERS if self._job.tiling is None else 0
        predicted = self._job.predict(pending, self._image_of, self._note_content, self._tell_tiles)
        with writers, closing(predicted) as results:
            saves = ((picture, found, writers.submit(self._save, picture, found)) for picture, found in results)
            for number, (picture, found, save) in enumerate(_ahead(saves, ahead), before + 1):
                if save.result() and not isinstance(found, Exception):
                    self.made += 1
                    self._job.told(picture.source.name, _facts(found))
                self._job.progress("images", number, total)

    def _tell_tiles(self, done: int, total: int) -> None:
        if done < total:  # then the number of images follows
            self._job.progress("tiles", done, total)

    def _note_content(self, picture: _Pending) -> None:
        """Read a picture again for its digest; one that has changed since it was read for the network has none."""
        content = content_digest(picture.source.path)
        picture.content = content if _state(picture.source) == picture.before else None

    def _image_of(self, picture: _Pending) -> ImageSource:
        """Return what to predict. For views, the picture is decoded here, once for both."""
        picture.before = _state(picture.source)
        if not self._drawn or self._job.tiling is not None:
            return picture.source.path
        if self._job.pixels.bands is not None:  # chosen bands must not be chosen again
            return picture.source.path
        pixels = self._visible(picture.source)
        with self._decoded_lock:
            if self._decoded + pixels.nbytes <= _MOST_DECODED:
                self._decoded += pixels.nbytes
                picture.pixels = pixels
        return Image.fromarray(pixels)  # networks with one channel do not take arrays with three

    def _save(self, picture: _Pending, found: dict[str, Any] | Exception) -> bool:
        """Write the views, then the document: if it exists, they do. Return whether there is one."""
        folder, source = self._job.folder, picture.source
        pixels, picture.pixels = picture.pixels, None
        try:
            if isinstance(found, Exception):
                self._fail(source, found, picture.content)
                return False
            folder.forget(source)
            if self._drawn:
                drawn = self._decode_again(source, found) if pixels is None else pixels
                write_picture_views(folder, source, self._drawn, drawn, found["detections"])
            if LABELME in self._job.views:
                write_labelme(folder, source, found["image_size"], found["detections"])
        except ImageError as error:
            self._fail(source, error, picture.content)
            return False
        finally:
            with self._decoded_lock:
                self._decoded -= 0 if pixels is None else pixels.nbytes
        kept = {name: value for name, value in found.items() if name != MILLISECONDS}
        write_document(
            folder.document(source), source, picture.mark, self._job.run, {"content_sha256": picture.content} | kept
        )
        self.done.append(source)
        return True

    def _decode_again(self, source: Source, found: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
        pixels = self._visible(source)
        if found["image_size"] != list(pixels.shape[:2]):
            raise ImageError(f"{source.name!r} changed during the run: predict it again")
        return pixels

    def _visible(self, source: Source) -> npt.NDArray[np.uint8]:
        """Return what the network sees, as RGB; of more than three bands, the first three."""
        policy = self._job.pixels
        channels = 3 if policy.bands is None else len(policy.bands)
        pixels = read_image(source.path, channels, self._job.max_pixels, policy)
        return pixels if channels == 3 else read_image(np.ascontiguousarray(pixels[..., : 3 if channels > 3 else 1]))

    def _fail(self, source: Source, error: Exception, content: str | None = None) -> None:
        self._job.folder.forget(source)
        self.unusable[printable_path(source.path)] = content
        self.failures.append(Failure.of(source, error))


def _facts(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return number of objects by class, time and size of an image, for its line."""
    height, width = found["image_size"]
    counts = Counter(row["name"] for row in found["detections"])
    objects = ", ".join(f"{count} {name}" for name, count in counts.most_common(_MOST_NAMED))
    more = f", {len(counts) - _MOST_NAMED} more classes" if len(counts) > _MOST_NAMED else ""
    return f"{one_line(objects) or 'nothing'}{more}", f"{found[MILLISECONDS]:.0f} ms", f"{width}x{height}"


def _state(source: Source) -> Stamp | None:
    with suppress(ImageError):
        return stamp(source)
    return None


def _ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """Yield items in order, each after up to `count` more are made."""
    made: deque[T] = deque()
    for item in items:
        made.append(item)
        if len(made) > count:
            yield made.popleft()
    yield from made
