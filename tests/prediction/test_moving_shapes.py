"""Shapes that move, cross and hide each other, with known tracks: at most two switches of ids in 200 frames."""

import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.synthetic.clutter import clutter
from maskrcnn.data.synthetic.geometry import draw_shape
from maskrcnn.prediction.predict import PredictOptions, predict_paths
from maskrcnn.prediction.video_file import write_video
from runtime import Predictor, Tracker
from runtime.masks.rle import encode_crop

pytest.importorskip("trackers", reason="needs the extra [track]")

FRAMES, SIZE, MOST = 200, (288, 384), 2


class Walker:
    """A shape that walks straight and turns at the edges."""

    def __init__(self, rng):
        self.side, self.class_id, self.seed = rng.uniform(36, 70), int(rng.integers(1, 4)), int(rng.integers(1 << 30))
        self.place, self.color = rng.uniform(0.2, 0.8, 2) * SIZE, np.zeros(3)
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1, 3.5)
        self.step = speed * np.array([np.sin(angle), np.cos(angle)])

    def shape(self):
        return draw_shape(self.class_id, self.side, self.place, np.random.default_rng(self.seed)).clip(SIZE)

    def walk(self):
        self.place = self.place + self.step
        low, high = 0.4 * self.side, np.array(SIZE) - 0.4 * self.side
        self.step = np.where((self.place < low) | (self.place > high), -self.step, self.step)
        self.place = np.where(self.place < low, 2 * low - self.place, self.place)
        self.place = np.where(self.place > high, 2 * high - self.place, self.place)


def walk(seed, pixels=False):
    """Yield for each frame the image, if asked for, and the visible masks by object, bool [H, W]."""
    rng = np.random.default_rng([seed, 7])
    walkers, back = [Walker(rng) for _ in range(5)], clutter(rng, SIZE)
    used = [back.mean((0, 1))]
    for walker in walkers:
        colors = rng.uniform(10, 245, (64, 3))
        walker.color = colors[np.argmax(np.linalg.norm(colors[:, None] - np.array(used), axis=2).min(axis=1))]
        used.append(walker.color)
    for _ in range(FRAMES):
        image, masks = back.copy() if pixels else None, {}
        for number, walker in enumerate(walkers):
            shape = walker.shape()
            if pixels:
                part = image[shape.window]
                part += shape.coverage[:, :, None] * (walker.color.astype(np.float32) - part)
            for mask in masks.values():
                mask[shape.window] &= ~shape.inside
            masks[number] = np.zeros(SIZE, np.bool_)
            masks[number][shape.window] = shape.inside
            walker.walk()
        yield image, {number: mask for number, mask in masks.items() if np.count_nonzero(mask) >= 60}


def iou(first, second):
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return shared / (np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - shared)


def count_switches(frames):
    """Count the identity switches of CLEAR MOT, with matches from a box IoU of 0.5 on.

    Args:
        frames: For each frame the true boxes by object, and the boxes by id.

    Returns:
        The switches, and the share of true boxes that were matched.
    """
    from scipy.optimize import linear_sum_assignment

    last, current, switches, matched, total = {}, {}, 0, 0, 0
    for truth, found in frames:
        total += len(truth)
        pairs = {(a, b): iou(truth[a], found[b]) for a in truth for b in found}
        pairs = {pair: value for pair, value in pairs.items() if value >= 0.5}
        kept = {a: b for a, b in current.items() if (a, b) in pairs}  # a match that still holds stays
        rest, ids = [a for a in truth if a not in kept], [b for b in found if b not in kept.values()]
        gains = np.array([[pairs.get((a, b), 0) for b in ids] for a in rest]).reshape(len(rest), len(ids))
        new = {
            rest[row]: ids[column]
            for row, column in zip(*linear_sum_assignment(-gains), strict=True)
            if gains[row, column]
        }
        switches += sum(last.get(a, b) != b for a, b in new.items())
        current = kept | new
        last |= new
        matched += len(kept) + len(new)
    return switches, matched / total


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def test_the_count():
    a, b, away = np.array([0, 0, 10, 10.0]), np.array([0, 1, 10, 10.0]), np.array([50, 50, 60, 60.0])
    frames = [({1: a}, {7: b}), ({1: a}, {7: b, 8: a}), ({1: a}, {7: away}), ({1: a}, {8: a}), ({1: a}, {7: a})]
    assert count_switches(frames) == (2, 4 / 5)  # from 7 to 8 and back; a better box does not end a match


@pytest.mark.parametrize("seed", [100, 101, 103])
@pytest.mark.parametrize("missing", [0, 0.03])
def test_ids_of_known_masks(seed, missing):
    """Complete and exact, and as a network finds them: some are missing, and all are up to two pixels off."""
    rng = np.random.default_rng(seed + 5)
    tracker, frames = Tracker(25), []
    for _, masks in walk(seed):
        truth, found = {number: box_of(mask) for number, mask in masks.items()}, masks
        if missing:
            kept = [mask for mask in masks.values() if rng.random() >= missing]
            found = dict(enumerate(np.roll(mask, rng.integers(-2, 3, 2), (0, 1)) for mask in kept))
        ids = tracker.update(np.full(len(found), 0.95), [encode_crop(mask, (0, 0), SIZE) for mask in found.values()])
        rows = zip(ids.tolist(), map(box_of, found.values()), strict=True)
        frames.append((truth, {number: box for number, box in rows if number}))
    switches, matched = count_switches(frames)
    assert switches <= MOST
    assert matched > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101, 102, 103])
def test_ids_of_the_demo_model_in_a_video(seed, tmp_path, pytestconfig):
    """The whole way: an encoded video, the network, `predict --track`."""
    truth, images = [], []
    for image, masks in walk(seed, pixels=True):
        truth.append({number: box_of(mask) for number, mask in masks.items()})
        images.append(Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8)))
    write_video(tmp_path / "shapes.mp4", images, Fraction(25))
    with Predictor(pytestconfig.rootpath / "maskrcnn" / "demo.onnx", "cpu") as predictor:
        options = PredictOptions(track=True, views=("overlay",))
        predict_paths(
            [str(tmp_path / "shapes.mp4")], tmp_path / "out", lambda: (predictor, "m"), options, lambda *_: None
        )
    lines = (tmp_path / "out" / "detections" / "shapes.mp4.jsonl").read_text(encoding="utf-8").splitlines()[1:-1]
    found = [
        {row["track_id"]: np.array(row["box"]) for row in json.loads(line)["detections"] if row["track_id"]}
        for line in lines
    ]
    switches, matched = count_switches(zip(truth, found, strict=True))
    assert switches <= MOST
    assert matched > 0.85
