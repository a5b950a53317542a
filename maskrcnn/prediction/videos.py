"""The videos of a run: frames are predicted into a journal, and the journal is drawn on the frames."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskrcnn.prediction.documents import Row, stamp
from maskrcnn.prediction.job import MILLISECONDS, Job
from maskrcnn.prediction.journal import Journal, read_journal
from maskrcnn.prediction.sources import Failure, Source
from maskrcnn.prediction.video_file import read_facts, read_frames, write_video
from maskrcnn.prediction.views import draw_view
from runtime.atomic import atomic_write
from runtime.errors import ImageError
from runtime.tracking import Tracker


class _StoppedError(Exception):
    """Ends the writing of a video after a stop."""


class _PendingFrame(NamedTuple):
    number: int
    time: float | None  # seconds
    pixels: list[npt.NDArray[np.uint8]]  # taken out when the frame is prepared: many wait for the network


class VideoRun:
    """Predicts videos.

    Attributes:
        done: Videos whose frames and views are complete.
        made: Number of frames predicted by this run.
        failures: Videos that could not be used.
    """

    def __init__(self, job: Job) -> None:
        self.done: list[Source] = []
        self.made = 0
        self.failures: list[Failure] = []
        self._job = job

    def run(self, sources: Sequence[Source]) -> None:
        """Predict and draw what is missing; end early if the job is stopped."""
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
        """Predict the missing frames; return whether all are in the journal."""
        head = {"video": source.name, "source": stamp(source), "run": self._job.run}
        if self._job.track:  # another version may give other ids
            head["tracker"] = version("trackers")
        journal = Journal(self._job.folder.document(source), head)
        with closing(journal):
            if journal.frames is not None:
                return True
            if not journal.written:
                self._job.folder.forget_views(source)
            self._append_frames(source, journal)
            return journal.frames is not None

    def _append_frames(self, source: Source, journal: Journal) -> None:
        every, (rate, known) = self._job.every, read_facts(source.path)
        tracker = Tracker(float(rate / every)) if self._job.track else None
        if tracker is not None:  # as if it had not been interrupted
            for line in read_journal(journal.path):
                _set_ids(tracker, line["detections"])
        total = None if known is None else -(-known // every)
        seen = 0

        def frames() -> Iterator[_PendingFrame]:
            nonlocal seen
            first = journal.written * every  # an earlier run predicted those before it
            for frame in read_frames(source.path):
                if self._job.stopped():  # perhaps long before the first frame to predict
                    return
                seen = frame.number + 1
                if frame.number >= first and frame.number % every == 0:
                    yield _PendingFrame(frame.number, frame.time, [frame.pixels])

        self._job.progress(source.name, journal.written, total)
        with closing(self._job.predict(frames(), lambda frame: Image.fromarray(frame.pixels.pop()))) as results:
            for frame, found in results:
                if isinstance(found, Exception):
                    raise ImageError(f"frame {frame.number}: {type(found).__name__}: {found}") from found
                del found[MILLISECONDS]
                if tracker is not None:
                    _set_ids(tracker, found["detections"])
                journal.append({"frame": frame.number, "time": frame.time, "device": found["device"]} | found)
                self.made += 1
                self._job.progress(source.name, journal.written, total)
        if self._job.stopped():
            return
        if not seen:
            raise ImageError(f"{source.name!r} has no frames; expected a video")
        journal.finish(seen)

    def _draw(self, source: Source) -> bool:
        """Draw the missing views; return whether all are complete."""
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
        """Yield all frames, drawn; one that was not predicted shows the detections of the last one that was."""
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


def _set_ids(tracker: Tracker, rows: Sequence[Row]) -> None:
    """Give the rows of the next frame their `track_id`; None for one without a track."""
    ids = tracker.update([row["score"] for row in rows], [row["mask"] for row in rows])
    for row, number in zip(rows, ids.tolist(), strict=True):
        row["track_id"] = number or None
