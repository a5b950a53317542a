"""Ids for the objects of a video, which stay the same from frame to frame."""

from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.arguments import real
from runtime.errors import InputError, MissingPackageError, RuntimeLibraryError

# From this score on, a detection begins a track; one below can only continue one.
_SCORE = 0.5


def require_tracker() -> Any:
    """Import the class `ByteTrackTracker` of the package trackers.

    Raises:
        MissingPackageError: It is not installed.
        RuntimeLibraryError: It is installed, but a library that it needs cannot be loaded.
    """
    try:
        from trackers import ByteTrackTracker  # noqa: PLC0415  (an extra, and slow to import)
    except ModuleNotFoundError as error:
        if error.name != "trackers":
            raise
        raise MissingPackageError("trackers", "track", "tracking") from error
    except ImportError as error:  # OpenCV, which it brings, is linked with libraries that servers often lack
        raise RuntimeLibraryError(
            f"tracking cannot load the package 'trackers': {error}: install that library, on Debian and Ubuntu with "
            "apt-get install libgl1 libglib2.0-0"
        ) from error
    return ByteTrackTracker


class Tracker:
    """Gives the objects of one video ids that stay the same from frame to frame, with ByteTrack.

    Boxes of one class are followed by their overlap with where each track should be. The same boxes always get the same
    ids. An object gets its id in the second frame in a row in which it is found, so a detection in a single frame never
    gets one. It keeps the id while it is hidden for at most a second. An object that changes its class gets a new id.

    Args:
        frame_rate: Frames per second that `update` is called with: those of the video, or fewer if frames are left out.

    Raises:
        InputError: `frame_rate` is not a positive number.
        MissingPackageError: trackers is not installed.
        RuntimeLibraryError: A library that trackers needs cannot be loaded.
    """

    def __init__(self, frame_rate: float = 25.0) -> None:
        self._rate = real("frame_rate", frame_rate, 1e-6, 1e6, "0.000001 to 1000000")
        self._make = require_tracker()
        self._by_class: dict[int, Any] = {}
        self._ids: dict[tuple[int, int], int] = {}

    def update(self, boxes: npt.ArrayLike, scores: npt.ArrayLike, class_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the ids of the detections in the next frame.

        A detection with a score of 0.5 or more can begin a track; one below can only continue a track.

        Args:
            boxes: [D, 4], x1, y1, x2, y2 in image pixels, as `Detections.boxes`.
            scores: [D], as `Detections.scores`.
            class_ids: [D], as `Detections.class_ids`.

        Returns:
            int64 [D], in the order of the detections: ids from 1 in the order in which they begin; 0 for a detection
            without a track.

        Raises:
            InputError: The shapes do not belong together.
        """
        from supervision import Detections  # noqa: PLC0415  (what trackers takes)

        places, marks = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
        classes = np.asarray(class_ids, np.int64)
        places = places if places.size else places.reshape(0, 4)
        shapes = (places.shape, marks.shape, classes.shape)
        if shapes != ((marks.size, 4), (marks.size,), (marks.size,)):
            raise InputError(f"boxes, scores and class_ids have the shapes {shapes}: expected [D, 4], [D] and [D]")
        ids = np.zeros(len(places), np.int64)
        for class_id in sorted({*self._by_class, *classes.tolist()}):
            if class_id not in self._by_class:
                self._by_class[class_id] = self._make(
                    frame_rate=self._rate, track_activation_threshold=_SCORE, high_conf_det_threshold=_SCORE
                )
            rows = np.flatnonzero(classes == class_id)
            found = Detections(places[rows], confidence=marks[rows], data={"row": rows})
            followed = self._by_class[class_id].update(found)
            for row, track in zip(followed.data.get("row", ()), followed.tracker_id.tolist(), strict=True):
                if track >= 0:
                    ids[row] = self._ids.setdefault((class_id, track), len(self._ids) + 1)
        return ids
