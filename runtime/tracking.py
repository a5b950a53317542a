"""Ids for the objects of a video, which stay the same from frame to frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.arguments import real, shown
from runtime.errors import InputError, MissingPackageError, RuntimeLibraryError
from runtime.masks.paste import MaskCrop, shared_pixels
from runtime.masks.rle import decode_crop, mask_box

# Two masks with a larger IoU are of the same object. Of masks of different objects, each pixel is in one only.
_SAME = 0.5
# A track takes no detection whose box has a smaller IoU with where it should be. With ByteTrack's own 0.1, the track of
# an object that was missed in a frame takes a neighbor: 52 switches in 10 scenes of 200 frames where 3 % of the masks
# are missing and all are up to 2 pixels off; with 0.25, 9.
_CONTINUES = 0.25


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

    Objects are followed by the overlap of the boxes around their masks with where each track should be, whatever their
    class is: a network often takes an object that is half hidden for one of another class. If two masks share more than
    half of the pixels that they cover together, they are taken for the same object, and only the one with the better
    score is followed.

    The same detections always get the same ids. An object gets its id in the second frame in a row in which it is
    found, so a detection in a single frame never gets one. It keeps the id while it is hidden for at most a second.

    Args:
        frame_rate: Frames per second that `update` is called with: those of the video, or fewer if frames are left out.

    Raises:
        InputError: `frame_rate` is not a positive number.
        MissingPackageError: trackers is not installed.
        RuntimeLibraryError: A library that trackers needs cannot be loaded.
    """

    def __init__(self, frame_rate: float = 25.0) -> None:
        rate = real("frame_rate", frame_rate, 1e-6, 1e6, "0.000001 to 1000000")
        self._tracker = require_tracker()(frame_rate=rate, minimum_iou_threshold=_CONTINUES)

    def update(self, scores: npt.ArrayLike, rles: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int64]:
        """Return the ids of the detections in the next frame.

        A detection with a score of 0.7 or more can begin a track; one below can only continue a track.

        Args:
            scores: [D], as `Detections.scores`.
            rles: D masks, as `Detections.rles`.

        Returns:
            int64 [D], in the order of the detections: ids from 1 in the order in which they begin; 0 for a detection
            without a track.

        Raises:
            InputError: There are more or fewer masks than scores, a score is not a finite number, or a mask is not a
                run-length encoding.
        """
        from supervision import Detections  # noqa: PLC0415  (what trackers takes)

        try:
            marks = np.asarray(scores, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"scores are {shown(scores)}: expected a number for each mask") from error
        if marks.shape != (len(rles),):
            raise InputError(f"scores have the shape {marks.shape} and there are {len(rles)} masks: expected one each")
        if not np.isfinite(marks).all():
            raise InputError(f"scores are {shown(scores)}: expected finite numbers")
        boxes = np.array([mask_box(rle) for rle in rles], np.float64).reshape(-1, 4)
        rows = _one_per_object(boxes, marks, rles)
        followed = self._tracker.update(Detections(boxes[rows], confidence=marks[rows], data={"row": rows}))
        ids = np.zeros(len(marks), np.int64)
        ids[followed.data.get("row", rows[:0])] = followed.tracker_id + 1
        return ids


def _one_per_object(
    boxes: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], rles: Sequence[Mapping[str, Any]]
) -> npt.NDArray[np.intp]:
    """Return the rows, in their order, whose mask is neither empty nor nearly that of a better row."""
    crops: dict[int, MaskCrop] = {}
    kept: list[int] = []

    def crop(row: int) -> MaskCrop:
        return crops[row] if row in crops else crops.setdefault(row, decode_crop(rles[row]))

    for row in np.argsort(-scores, kind="stable").tolist():
        if boxes[row, 2] == boxes[row, 0]:
            continue
        corners = boxes[kept]
        meet = (np.minimum(boxes[row, 2:], corners[:, 2:]) > np.maximum(boxes[row, :2], corners[:, :2])).all(axis=1)
        near = [kept[place] for place in np.flatnonzero(meet).tolist()]
        if not any(_iou(crop(row), crop(other)) > _SAME for other in near):
            kept.append(row)
    return np.array(sorted(kept), np.intp)


def _iou(first: MaskCrop, second: MaskCrop) -> float:
    shared = shared_pixels(first, second)
    return shared / max(int(np.count_nonzero(first[0])) + int(np.count_nonzero(second[0])) - shared, 1)
