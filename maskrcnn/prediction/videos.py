"""The videos of a run: frames through the predictor into a journal, and the journal drawn on the frames."""

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.prediction.documents import Row, stamp
from maskrcnn.prediction.job import Job
from maskrcnn.prediction.journal import Journal, read_journal
from maskrcnn.prediction.sources import Failure, Source
from maskrcnn.prediction.video_file import Frame, read_facts, read_frames, write_video
from maskrcnn.prediction.views import draw_view
from runtime.atomic import atomic_write
from runtime.errors import ImageError
from runtime.pictures.letterbox import Letterbox


class _StoppedError(Exception):
    """Unwinds the writing of a video that shall not be finished."""


class VideoRun:
    """Predicts videos.

    Attributes:
        done: Those whose frames are all predicted, with the views that were asked for.
        made: How many frames were predicted now.
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
        for source in sources:
            if self._job.stopped():
                return
            try:
                finished = self._predict(source) and self._draw(source)
            except ImageError as error:
                self.failures.append(Failure.of(source, error))
            else:
                if finished:
                    self.done.append(source)

    def _predict(self, source: Source) -> bool:
        """Whether all frames are in the journal now."""
        head = {"video": source.name, "source": stamp(source), "run": self._job.run}
        journal = Journal(self._job.folder.document(source), head)
        with closing(journal):
            if journal.frames is not None:
                return True
            if not journal.written:
                self._job.folder.forget_views(source)
            self._append_frames(source, journal)
            return journal.frames is not None

    def _append_frames(self, source: Source, journal: Journal) -> None:
        every, known = self._job.every, read_facts(source.path).frames
        total = None if known is None else -(-known // every)
        seen = 0

        def frames() -> Iterator[Frame]:
            nonlocal seen
            first = journal.written * every  # the frames before it were predicted by an earlier run
            for frame in read_frames(source.path):
                if self._job.stopped():  # which may be long before the first frame that is not predicted yet
                    return
                seen = frame.number + 1
                if frame.number >= first and frame.number % every == 0:
                    yield frame

        self._job.progress(source.name, journal.written, total)
        with closing(self._job.predict(frames(), self._prepare)) as results:
            for frame, found in results:
                if isinstance(found, Exception):
                    raise ImageError(f"frame {frame.number}: {type(found).__name__}: {found}") from found
                journal.append({"frame": frame.number, "time": frame.time, "device": found["device"]} | found)
                self.made += 1
                self._job.progress(source.name, journal.written, total)
        if self._job.stopped():
            return
        if not seen:
            raise ImageError(f"{source.name!r} has no frames; expected a video")
        journal.finish(seen)

    def _prepare(self, frame: Frame) -> tuple[Letterbox, npt.NDArray[np.uint8]]:
        return self._job.predictor.prepare(Image.fromarray(frame.pixels))

    def _draw(self, source: Source) -> bool:
        """Whether the views are all there now."""
        for kind in self._job.views:
            path = self._job.folder.view(kind, source)
            if path.exists():
                continue
            try:
                with atomic_write(path, overwrite=True) as temporary:
                    write_video(temporary, self._drawn(source, kind), read_facts(source.path).rate)
            except _StoppedError:
                return False
        return True

    def _drawn(self, source: Source, kind: str) -> Iterator[Image.Image]:
        """Every frame of the video; one that was not predicted shows what was found in the last one that was."""
        lines = read_journal(self._job.folder.document(source))
        upcoming = next(lines, None)
        rows: list[Row] = []
        known = read_facts(source.path).frames
        for frame in read_frames(source.path):
            if self._job.stopped():
                raise _StoppedError
            self._job.progress(f"{source.name} ({kind})", frame.number, known)
            if upcoming is not None and upcoming["frame"] == frame.number:
                rows = upcoming["detections"]
                upcoming = next(lines, None)
            yield draw_view(kind, frame.pixels, rows, by_class=True)
