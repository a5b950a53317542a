"""Batches: every image once per pass, the same from any step on, equal to `make_batch`."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.configuration.samples import DEMO
from maskrcnn.configuration.training import AugmentationConfig, TrainingConfig
from maskrcnn.data.augment_hook import AugmentHook
from maskrcnn.data.batches import BatchPlan, Share, make_batch, training_batches, validation_batches
from maskrcnn.data.records import Dataset
from maskrcnn.data.synthetic.shapes import shapes_dataset
from maskrcnn.errors import DatasetError
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox

CONFIG = replace(
    DEMO,
    resize=ResizePolicy("square", None, 128),
    training=TrainingConfig(
        max_instances=8, anchors_per_image=32, augmentation=AugmentationConfig(flip_horizontal=0.5, scale=(0.8, 1.3))
    ),
)
DATASET = shapes_dataset(7, 0)


def test_a_pass_has_each_picture_once_and_the_next_another_order():
    plan = BatchPlan(DATASET, 2, seed=3)
    rows = [row for step in range(7) for row in plan.rows(step)]
    assert sorted(rows[:7]) == sorted(rows[7:]) == list(range(7))
    assert rows[:7] != rows[7:]
    assert BatchPlan(DATASET, 2, seed=3).rows(5) == plan.rows(5)
    assert [BatchPlan(DATASET, 2, seed=4).rows(step) for step in range(7)] != [plan.rows(step) for step in range(7)]
    assert plan.image_ids(2) == [DATASET.records[row].image_id for row in plan.rows(2)]


def test_order_of_the_dataset():
    plan = BatchPlan(DATASET, 3, shuffle=False)
    assert [plan.rows(step) for step in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]


def test_no_pictures():
    with pytest.raises(DatasetError, match="no images"):
        BatchPlan(Dataset("empty", ("BG", "a"), ()), 2)


def equal(ours, theirs):
    assert set(ours) == set(theirs)
    for name in ours:
        assert np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name])), name


def test_pipeline_gives_the_batches_of_each_step_from_any_step_on():
    plan = BatchPlan(DATASET, 2, seed=1)
    whole = list(training_batches(CONFIG, plan).take(4))
    later = list(training_batches(CONFIG, plan, first_step=2).take(2))
    for step, batch in enumerate(whole):
        equal(batch, make_batch(CONFIG, plan, step))
    equal(later[0], whole[2])
    equal(later[1], whole[3])
    assert not np.array_equal(whole[0]["images"], whole[1]["images"])
    assert whole[0]["images"].shape == (2, 128, 128, 3)
    assert np.asarray(whole[1]["seeds"]).tolist() == [[1, 2], [1, 3]]


def test_an_image_is_augmented_differently_in_each_pass():
    plan = BatchPlan(shapes_dataset(1, 2), 1, seed=0)
    first, second = make_batch(CONFIG, plan, 0), make_batch(CONFIG, plan, 1)
    assert not np.array_equal(first["images"], second["images"])


def test_own_augmentation_repeats_in_each_step_and_is_not_for_validation():
    def noise(image, boxes, masks, rng):
        return rng.integers(0, 256, image.shape, np.uint8), boxes, masks

    plan = BatchPlan(DATASET, 2, seed=1, hook=AugmentHook(noise))
    whole = list(training_batches(CONFIG, plan).take(3))  # by several threads
    for step, batch in enumerate(whole):
        equal(batch, make_batch(CONFIG, plan, step))
    equal(next(iter(training_batches(CONFIG, plan, first_step=2))), whole[2])
    assert not np.array_equal(whole[0]["images"], make_batch(CONFIG, BatchPlan(DATASET, 2, seed=1), 0)["images"])
    fixed = BatchPlan(DATASET, 2, shuffle=False, hook=AugmentHook(noise))
    equal(make_batch(CONFIG, fixed, 0, training=False), next(iter(validation_batches(CONFIG, DATASET, 2))))


def test_validation_has_each_picture_once_as_it_is():
    batches = list(validation_batches(CONFIG, DATASET, 3))
    assert len(batches) == 2  # the seventh image does not fill a batch
    plan = BatchPlan(DATASET, 3, shuffle=False)
    equal(batches[1], make_batch(CONFIG, plan, 1, training=False))
    assert len(list(validation_batches(CONFIG, DATASET, 50))) == 1


@pytest.mark.parametrize(
    ("images", "devices", "parts"), [(5, 2, [3, 2]), (4, 3, [2, 2, 0]), (2, 3, [1, 1, 0]), (1, 2, [1, 0])]
)
def test_uneven_validation_images_are_dealt_out_to_devices(images, devices, parts):
    dataset = replace(DATASET, records=DATASET.records[:images])
    plan = BatchPlan(dataset, images, shuffle=False)
    whole = make_batch(CONFIG, plan, 0, training=False)
    found = [next(iter(validation_batches(CONFIG, dataset, 50, Share(i, 1, devices)))) for i in range(devices)]
    assert [int(np.sum(batch["used"])) for batch in found] == parts
    for device, batch in enumerate(found):
        assert len(batch["used"]) == max(parts[device], 1)
        equal(batch, make_batch(CONFIG, plan, 0, training=False, device=device, devices=devices))
    for name, array in whole.items():
        used = [np.asarray(batch[name]) for batch, count in zip(found, parts, strict=True) if count]
        np.testing.assert_array_equal(np.concatenate(used), array, err_msg=name)


def test_pictures_of_several_sizes_share_the_larger_one():
    config = replace(CONFIG, resize=ResizePolicy("pad64"), training=replace(CONFIG.training, mini_mask_size=None))
    batch = make_batch(config, BatchPlan(DATASET, 7, shuffle=False), 0, training=False)
    sizes = {record.load_image().shape[:2] for record in DATASET.records}
    height, width = (-(-max(size[axis] for size in sizes) // 64) * 64 for axis in (0, 1))
    assert batch["images"].shape == (7, height, width, 3)
    most = max(np.count_nonzero(row) for row in batch["class_ids"])
    assert 0 < most < batch["class_ids"].shape[1] == 8
    assert batch["masks"].shape == (7, most, height, width)
    assert batch["masks"].any(axis=(2, 3)).sum() == np.count_nonzero(batch["class_ids"])


@pytest.mark.parametrize(("resampling", "dtype"), [("float", "float32"), ("pillow", "uint8"), ("opencv", "uint8")])
def test_pictures_resized_by_the_short_side(resampling, dtype):
    resize = ResizePolicy("short_side", short_side=96, long_side=160, resampling=resampling)
    config = replace(CONFIG, resize=resize, detection=replace(CONFIG.detection, mask_paste="torchvision"))
    plan = BatchPlan(DATASET, 2, shuffle=False)
    batch = make_batch(config, plan, 0, training=False)
    assert batch["images"].dtype == dtype
    height, width = batch["images"].shape[1:3]
    assert height % 32 == width % 32 == 0
    assert batch["class_ids"].any()
    continuous = replace(config, model=replace(config.model, box_frame="continuous"))
    scaled = make_batch(continuous, plan, 0, training=False)["boxes"]
    assert 0 < np.abs(scaled - batch["boxes"]).max() <= 2  # in proportion, and around the resized mask
    for row, record in enumerate(plan.dataset.records[:2]):
        letterbox = plan_letterbox(record.load_image().shape[:2], resize)
        inside = batch["images"][row][: letterbox.input_size[0], : letterbox.input_size[1]]
        np.testing.assert_array_equal(inside, letterbox.apply(record.load_image()))
        found = batch["boxes"][row][batch["class_ids"][row] != 0]
        assert (found[:, 2:] <= letterbox.resized_size).all()
        np.testing.assert_array_equal(batch["windows"][row], letterbox.window)
    (first, *_) = training_batches(config, plan).take(1)
    assert first["images"].dtype.name == dtype
