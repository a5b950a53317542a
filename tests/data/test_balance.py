"""Balanced sampling: repeat factors against their formula, visits per pass, and the same order from any step on."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from maskrcnn.data.balance import repeat_factors
from maskrcnn.data.batches import BatchPlan
from maskrcnn.data.records import Dataset, Instance, Record
from runtime.masks import rle

MASK = rle.encode_crop(np.ones((2, 2), np.bool_), (0, 0), (8, 8))


def dataset(*images, crowds=()):
    """A dataset of images given by their class ids, with further crowds by image."""
    records = [
        Record(
            number,
            lambda: np.zeros((8, 8, 3), np.uint8),
            (
                *(Instance(class_id, MASK) for class_id in classes),
                *(Instance(class_id, MASK, crowd=True) for image, class_id in crowds if image == number),
            ),
        )
        for number, classes in enumerate(images)
    ]
    return Dataset("made", ("BG", "common", "rare", "none"), tuple(records))


COMMON, EMPTY = [(1, 1, 1)] * 90, [()] * 6
RARE = dataset(*COMMON, *EMPTY, (1, 2), (2, 2, 2), (2,), (1, 1, 2), crowds=[(0, 2)])  # 4 of 100 images


def test_factors_are_those_of_lvis():
    """A class counts once per image, crowds do not count, and an image has the largest factor of its classes."""
    classes, images = repeat_factors(RARE, 0.5)
    assert classes == {1: 1.0, 2: pytest.approx(math.sqrt(0.5 / 0.04))}
    assert images.tolist() == [1000] * 96 + [3536] * 4
    classes, images = repeat_factors(RARE, 1.0)
    assert classes == {1: pytest.approx(math.sqrt(1 / 0.92)), 2: pytest.approx(5.0)}
    assert images.tolist() == [1043] * 90 + [1000] * 6 + [5000] * 4
    assert repeat_factors(RARE, 0.04)[1].tolist() == [1000] * 100


def passes(plan, count):
    """The images of the first passes, one list each."""
    length = plan.repeats.sum()
    begins = [epoch * length // 1000 for epoch in range(count + 1)]
    visits = [row for step in range(-(-begins[-1] // plan.batch_size)) for row in plan.rows(step)]
    return [visits[begin:end] for begin, end in pairwise(begins)]


def test_every_pass_has_each_image_its_factor_rounded_down_or_up():
    plan = BatchPlan(RARE, 7, seed=3, repeat_threshold=0.5)
    found = passes(plan, 200)
    counts = np.array([np.bincount(rows, minlength=100) for rows in found])
    assert (counts[:, :96] == 1).all()  # also images without objects
    assert set(counts[:, 96:].ravel()) == {3, 4}
    assert counts[:, 96:].mean() == pytest.approx(3.536, abs=0.01)
    assert counts.sum() == 200 * plan.repeats.sum() // 1000
    assert found[0] != found[1]
    assert len({tuple(np.flatnonzero(np.isin(rows, range(96, 100)))) for rows in found[:20]}) == 20  # spread at random


def test_order_depends_on_seed_and_step_only():
    plan = BatchPlan(RARE, 8, seed=3, repeat_threshold=1.0)
    steps = [plan.rows(step) for step in range(60)]
    again = BatchPlan(RARE, 8, seed=3, repeat_threshold=1.0)
    assert [again.rows(step) for step in reversed(range(60))] == steps[::-1]
    assert [BatchPlan(RARE, 8, seed=4, repeat_threshold=1.0).rows(step) for step in range(60)] != steps
    halves = BatchPlan(RARE, 4, seed=3, repeat_threshold=1.0)  # half as many images per step: the same sequence
    assert [row for step in range(120) for row in halves.rows(step)] == [row for rows in steps for row in rows]


def test_a_threshold_that_repeats_nothing_has_each_image_once_and_none_is_the_old_order():
    assert sorted(BatchPlan(RARE, 100, seed=3, repeat_threshold=0.01).rows(5)) == list(range(100))
    plain = [row for step in range(2) for row in BatchPlan(RARE, 100, seed=3).rows(step)]
    assert plain == [
        *np.random.default_rng([3, 1, 0]).permutation(100),
        *np.random.default_rng([3, 1, 1]).permutation(100),
    ]


def test_annotations_are_read_for_a_threshold_only():
    def refuse():
        raise AssertionError("read")

    lazy = replace(RARE, records=tuple(replace(record, instances=refuse) for record in RARE.records))
    BatchPlan(lazy, 2)
    with pytest.raises(AssertionError, match="read"):
        BatchPlan(lazy, 2, repeat_threshold=0.5)
