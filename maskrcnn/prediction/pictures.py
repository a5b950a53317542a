"""The pictures of a run: which are done, the views they lack, and the rest through the predictor."""

from collections.abc import Sequence
from contextlib import closing

from maskrcnn.prediction.detect import detect
from maskrcnn.prediction.documents import Stamp, found_in, read_document, stamp, write_document
from maskrcnn.prediction.job import Job
from maskrcnn.prediction.sources import Failure, Source
from maskrcnn.prediction.views import write_picture_views
from runtime.detections import Detections
from runtime.errors import ImageError


class PictureRun:
    """Predicts pictures.

    Attributes:
        done: Those with a document, and the views that were asked for.
        made: How many were predicted now.
        failures: Of the others, as far as the run has come.
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
        pending: list[tuple[Source, Stamp]] = []
        lacking: list[tuple[Source, list[str]]] = []
        for source in sources:
            try:
                mark = stamp(source)
            except ImageError as error:
                self._fail(source, error)
                continue
            views = [kind for kind in self._job.views if not self._job.folder.view(kind, source).exists()]
            if read_document(self._job.folder.document(source), mark, self._job.run) is None:
                pending.append((source, mark))
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
            raise ImageError(f"{source.name!r} was changed during the run: predict it again")
        write_picture_views(self._job.folder, source, views, document["image_size"], document["detections"])

    def _predict(self, pending: Sequence[tuple[Source, Stamp]], total: int) -> None:
        if not pending or self._job.stopped():
            return
        self._job.progress("pictures", total - len(pending), total)
        items = ((each, each[0].path) for each in pending)
        with closing(detect(self._job.predictor, items, self._job.batch_size, self._job.stopped)) as results:
            for number, ((source, mark), found) in enumerate(results, 1):
                if isinstance(found, Exception):
                    self._fail(source, found)
                else:
                    self._save(source, mark, self._job.keep(found))
                self._job.progress("pictures", total - len(pending) + number, total)

    def _save(self, source: Source, mark: Stamp, detections: Detections) -> None:
        """Write views first and the document last: where it stands, they stand."""
        self._job.folder.forget(source)
        found = found_in(detections)
        try:
            write_picture_views(self._job.folder, source, self._job.views, found["image_size"], found["detections"])
        except ImageError as error:
            self._fail(source, error)
            return
        write_document(
            self._job.folder.document(source), source, mark, self._job.run, found | {"device": self._job.device}
        )
        self.done.append(source)
        self.made += 1

    def _fail(self, source: Source, error: Exception) -> None:
        self._job.folder.forget(source)
        self.failures.append(Failure.of(source, error))
