"""One image with its objects as network input: equal to the original, and edge cases."""

from dataclasses import replace

import golden
import numpy as np
import pytest

from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.configuration.model import Config, DetectionConfig, ModelConfig
from maskrcnn.configuration.training import AugmentationConfig, TrainingConfig
from maskrcnn.data.records import Instance, Record
from maskrcnn.data.sample import load_sample
from maskrcnn.data.sample_arrays import sample_arrays
from runtime.masks.paste import place_crops
from runtime.masks.rle import encode_crop
from runtime.pictures.letterbox import ResizePolicy

GOLDEN = golden.load("train_small_seed0")
SMALL = Config(
    model=ModelConfig(class_names=("BG", "a", "b")),
    detection=DetectionConfig(mask_paste="aligned"),
    resize=ResizePolicy("square", None, 128),
    training=TrainingConfig(max_instances=4, anchors_per_image=32),
)


def record(image, masks, class_ids, crowds=None, active=None):
    crowds = [False] * len(masks) if crowds is None else crowds
    instances = tuple(
        Instance(int(i), encode_crop(mask, (0, 0), mask.shape), crowd)
        for mask, i, crowd in zip(masks, class_ids, crowds, strict=True)
    )
    return Record("one", lambda: image, instances, active)


def rectangle(size, y1, x1, y2, x2):
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.mark.parametrize("picture", [0, 1])
def test_sample_is_the_originals(picture):
    config = from_matterport(golden.config_values(GOLDEN))
    shape = GOLDEN[f"src_mask{picture}_shape"]
    masks = np.unpackbits(GOLDEN[f"src_mask{picture}_packed"])[: np.prod(shape)].reshape(shape).astype(bool)
    source = record(GOLDEN[f"src_image{picture}"], masks.transpose(2, 0, 1), GOLDEN[f"src_class_ids{picture}"].tolist())
    sample = load_sample(source, config, np.random.default_rng(0))
    assert sample.class_ids.tolist() == GOLDEN[f"gt{picture}_class_ids"].tolist()
    assert np.array_equal(sample.boxes, GOLDEN[f"gt{picture}_bbox"])
    difference = np.abs(sample.image.astype(int) - GOLDEN[f"gt{picture}_image"])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.03
    assert list(sample.letterbox.window) == GOLDEN[f"gt{picture}_meta"][7:11].astype(int).tolist()
    shape = GOLDEN[f"gt{picture}_full_mask_shape"]
    full = np.unpackbits(GOLDEN[f"gt{picture}_full_mask_packed"])[: np.prod(shape)].reshape(shape).astype(bool)
    assert np.array_equal(place_crops(sample.crops, (256, 256)), full.transpose(2, 0, 1))
    arrays = sample_arrays(sample, config, np.random.default_rng(0), (256, 256))
    count = len(sample.crops)
    assert np.array_equal(arrays["masks"][:count], GOLDEN[f"gt{picture}_mini_mask"].transpose(2, 0, 1))
    assert not arrays["masks"][count:].any()


def test_objects_without_pixels_and_of_a_crowd():
    size = (64, 100)
    masks = [rectangle(size, 10, 10, 40, 50), rectangle(size, 0, 0, 0, 0), rectangle(size, 5, 60, 60, 95)]
    source = record(np.zeros((*size, 3), np.uint8), masks, [1, 2, 2], [False, False, True])
    sample = load_sample(source, SMALL, np.random.default_rng(0))
    assert sample.class_ids.tolist() == [1, -2]
    arrays = sample_arrays(sample, SMALL, np.random.default_rng(0), (128, 128))
    assert arrays["class_ids"].tolist() == [1, -2, 0, 0]
    assert arrays["boxes"].shape == (4, 4)
    assert arrays["rpn_bbox"].shape == (32, 4)
    assert np.isfinite(arrays["rpn_bbox"]).all()


def test_picture_without_objects():
    sample = load_sample(record(np.zeros((50, 60, 3), np.uint8), [], []), SMALL, np.random.default_rng(0))
    arrays = sample_arrays(sample, SMALL, np.random.default_rng(0), (128, 128))
    assert not arrays["class_ids"].any()
    assert arrays["masks"].shape == (4, 56, 56)
    assert (arrays["rpn_match"] == -1).sum() == 32


def test_surplus_objects_are_drawn_and_active_classes_marked():
    size = (128, 128)
    masks = [rectangle(size, 12 * i, 12 * i, 12 * i + 20, 12 * i + 20) for i in range(9)]
    source = record(np.zeros((*size, 3), np.uint8), masks, [1] * 9, active=frozenset({1}))
    sample = load_sample(source, SMALL, np.random.default_rng(0))
    draws = [sample_arrays(sample, SMALL, np.random.default_rng(seed), size)["boxes"] for seed in (0, 0, 1)]
    assert len(np.unique(draws[0], axis=0)) == 4
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert sample.active.tolist() == [1.0, 1.0, 0.0]


def test_full_size_masks_and_a_batch_larger_than_the_picture():
    config = replace(SMALL, resize=ResizePolicy("none"), training=replace(SMALL.training, mini_mask_size=None))
    size = (64, 128)
    mask = rectangle(size, 10, 20, 50, 90)
    sample = load_sample(record(np.full((*size, 3), 9, np.uint8), [mask], [2]), config, np.random.default_rng(0))
    arrays = sample_arrays(sample, config, np.random.default_rng(0), (128, 192))
    assert arrays["images"].shape == (128, 192, 3)
    assert arrays["images"][:64, :128].min() == 9
    assert not arrays["images"][64:].any()
    assert np.array_equal(arrays["masks"][0][:64, :128], mask)
    assert arrays["masks"].shape == (4, 128, 192)


def test_crop_mode_cuts_a_random_part_that_masks_follow():
    config = replace(SMALL, training=replace(SMALL.training, resize=ResizePolicy("crop", 64, None, 1.0)))
    size = (90, 150)
    image = np.arange(90 * 150, dtype=np.uint32).reshape(size)
    image = np.stack([image % 251, image // 251, image * 0], axis=-1).astype(np.uint8)
    mask = image[..., 0] > 120
    places = set()
    for seed in range(8):
        sample = load_sample(record(image, [mask], [1]), config, np.random.default_rng(seed))
        assert sample.image.shape == (64, 64, 3)
        assert np.array_equal(place_crops(sample.crops, (64, 64))[0], sample.image[..., 0] > 120)
        places.add(sample.letterbox.offset)
    assert len(places) > 4


def test_validation_is_not_augmented():
    config = replace(
        SMALL, training=replace(SMALL.training, augmentation=AugmentationConfig(flip_horizontal=1.0, brightness=0.5))
    )
    image = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    source = record(image, [rectangle((128, 128), 0, 0, 40, 30)], [1])
    plain = load_sample(source, config, np.random.default_rng(0), training=False)
    assert np.array_equal(plain.image, image)
    assert plain.boxes.tolist() == [[0, 0, 40, 30]]
    assert load_sample(source, config, np.random.default_rng(0)).boxes.tolist() == [[0, 98, 40, 128]]
