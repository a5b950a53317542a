"""Ids over frames. The package comes with the extra `track`; what is missing is named without it."""

import sys
from types import ModuleType

import numpy as np
import pytest

from runtime import Tracker
from runtime.errors import InputError, MissingPackageError, RuntimeLibraryError
from runtime.masks.rle import encode_crop


@pytest.fixture
def tracker():
    pytest.importorskip("trackers", reason="needs the extra [track]")
    return Tracker(25)


def mask(x, y=0, side=20):
    return encode_crop(np.ones((side, side), np.bool_), (y, x), (60, 300))


def follow(tracker, frames):
    """Ids of frames that are lists of (x, score), squares of 20 x 20."""
    ids = []
    for rows in frames:
        ids.append(tracker.update([score for _, score in rows], [mask(x) for x, _ in rows]).tolist())
    return ids


def test_an_object_gets_its_id_in_its_second_frame_and_keeps_it(tracker):
    frames = [[(n, 0.9), (100 - n, 0.8)] for n in range(6)] + [[(94, 0.9), (6, 0.8)]]
    assert follow(tracker, frames) == [[0, 0], *[[1, 2]] * 5, [2, 1]]  # the order of the rows does not matter


def test_ids_are_int64_in_the_order_of_the_detections(tracker):
    assert tracker.update([], []).shape == (0,)
    ids = tracker.update(np.array([0.9], np.float32), [mask(0)])
    assert (ids.dtype, ids.shape, ids.tolist()) == (np.int64, (1,), [0])
    assert tracker.update(np.zeros(0, np.float32), []).shape == (0,)


@pytest.mark.parametrize("scores", [["good"], [float("nan")], None, [0.9, 0.8]])
def test_scores_that_are_none(tracker, scores):
    with pytest.raises(InputError, match=r"^scores (are|have)"):
        tracker.update(scores, [mask(0)])


def test_low_scores_continue_tracks_and_begin_none(tracker):
    assert follow(tracker, [[(0, 0.69)]] * 5) == [[0]] * 5
    assert follow(tracker, [[(0, 0.9)]] * 2 + [[(0, 0.2)]] * 3)[1:] == [[1]] * 4


def test_of_two_detections_of_an_object_the_better_one_is_followed(tracker):
    frames = [[(0, 0.75), (2, 0.9), (60, 0.8)]] * 2 + [[(0, 0.9), (2, 0.7), (60, 0.8)]]
    assert follow(tracker, frames) == [[0, 0, 0], [0, 1, 2], [1, 0, 2]]


def test_objects_that_overlap_with_pixels_of_their_own_are_two(tracker):
    """A rider and a horse."""
    arch = np.ones((20, 20), np.bool_)
    arch[4:, 4:16] = False
    rles = [encode_crop(part, (0, 0), (60, 300)) for part in (arch, ~arch)]
    assert [tracker.update([0.9, 0.8], rles).tolist() for _ in range(3)] == [[0, 0], [1, 2], [1, 2]]


def test_an_empty_mask_has_no_id(tracker):
    nothing = encode_crop(np.zeros((0, 0), np.bool_), (0, 0), (60, 300))
    assert [tracker.update([0.9, 0.8, 0.9], [nothing, mask(0), nothing]).tolist() for _ in range(2)][1] == [0, 1, 0]


@pytest.mark.parametrize(("hidden", "same"), [(1, True), (20, True), (40, False)])
def test_a_hidden_object_keeps_its_id_for_a_second(tracker, hidden, same):
    frames = [[(0, 0.9)]] * 5 + [[]] * hidden + [[(0, 0.9)]] * 3
    assert follow(tracker, frames)[-1] == [1 if same else 2]


def test_a_second_is_fewer_frames_at_a_lower_rate(tracker):
    frames = [[(0, 0.9)]] * 5 + [[]] * 20 + [[(0, 0.9)]] * 3
    assert follow(Tracker(10), frames)[-1] == [2]


def test_trackers_do_not_share_ids(tracker):
    frames = [[(0, 0.9), (50, 0.9)]] * 3
    assert follow(tracker, frames) == follow(Tracker(25), frames) == [[0, 0], [1, 2], [1, 2]]


def test_wrong_arguments(tracker):
    for rate in (0, -1, float("nan"), float("inf"), "25", None, True):
        with pytest.raises(InputError, match=r"frame_rate is .*: expected a number"):
            Tracker(rate)
    for scores, rles in (([], [mask(0)]), ([1], []), ([[1]], [mask(0)])):
        with pytest.raises(InputError, match="expected one each"):
            tracker.update(scores, rles)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingPackageError, match=r"tracking needs the package 'trackers'.*maskrcnn-export\[track\]"):
        Tracker(25)


def test_a_missing_system_library_is_named(monkeypatch):
    broken = ModuleType("trackers")

    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    broken.__getattr__ = fail
    monkeypatch.setitem(sys.modules, "trackers", broken)
    with pytest.raises(RuntimeLibraryError, match=r"libGL.so.1: .*: install that library.* libgl1"):
        Tracker(25)
