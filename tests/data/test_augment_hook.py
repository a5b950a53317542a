"""Augmentation by a function of the user: what it gets, what it may return, and what is refused."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.configuration.training import AugmentationConfig, TrainingConfig
from maskrcnn.data.augment_hook import AugmentHook, find_hook
from maskrcnn.data.records import Instance, Record
from maskrcnn.data.sample import load_sample
from maskrcnn.errors import ArgumentError, TrainingError
from runtime.masks.paste import place_crops
from runtime.masks.rle import encode_crop
from runtime.pictures.letterbox import ResizePolicy

HEIGHT, WIDTH = 40, 64
CONFIG = Config(
    model=ModelConfig(class_names=("BG", "a", "b")), resize=ResizePolicy("pad64", None, None), training=TrainingConfig()
)
BOXES = [(4, 8, 20, 30), (10, 40, 39, 64), (0, 0, 1, 1)]  # y1, x1, y2, x2; the last two touch the border
IDS = [1, -2, 2]


def image(height=HEIGHT, width=WIDTH):
    y, x = np.indices((height, width))
    return np.stack([y, x, (7 * y + 3 * x) % 256], axis=2).astype(np.uint8)


def bitmaps(boxes=BOXES):
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), bool)
    for mask, (y1, x1, y2, x2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def record(boxes=BOXES, ids=IDS, pixels=None):
    pixels = image() if pixels is None else pixels
    instances = tuple(
        Instance(abs(i), encode_crop(mask, (0, 0), mask.shape), i < 0)
        for mask, i in zip(bitmaps(boxes), ids, strict=True)
    )
    return Record("photo.png", lambda: pixels, instances)


def sample(function, source=None, seed=0, **augmentation):
    config = replace(CONFIG, training=replace(CONFIG.training, augmentation=AugmentationConfig(**augmentation)))
    hook = None if function is None else AugmentHook(function)
    return load_sample(source or record(), config, np.random.default_rng([seed, 2, 5]), True, hook)


def whole(found):
    """The masks in pixels of the padded input."""
    return place_crops(found.crops, found.image.shape[:2])


def test_the_function_gets_copies_in_the_documented_form():
    seen = {}

    def look(image, boxes, masks, class_ids, rng):
        seen.update(image=image.copy(), boxes=boxes, masks=masks.copy(), ids=class_ids.copy(), rng=rng)
        result = image.copy(), boxes, masks.copy(), class_ids.copy()
        image[:], masks[:], class_ids[:] = 0, False, 1
        return result

    source = record()
    before = sample(None, source)
    after = sample(look, source)
    assert seen["image"].dtype == np.uint8
    assert np.array_equal(seen["image"], image())
    assert seen["masks"].dtype == bool
    assert np.array_equal(seen["masks"], bitmaps())
    assert seen["boxes"].dtype == np.float32
    assert seen["boxes"].tolist() == [[x1, y1, x2, y2] for y1, x1, y2, x2 in BOXES]
    assert seen["ids"].dtype == np.int32
    assert seen["ids"].tolist() == IDS
    assert isinstance(seen["rng"], np.random.Generator)
    assert np.array_equal(after.image, before.image)
    assert np.array_equal(whole(after), whole(before))
    assert np.array_equal(source.load_image(), image())  # what the dataset holds was not written to


@pytest.mark.parametrize("form", [np.array, list, tuple])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_a_mirror_image_is_that_of_the_builtin_flip(form, dtype):
    def mirror(image, boxes, masks):
        x1, x2 = image.shape[1] - boxes[:, 2], image.shape[1] - boxes[:, 0]
        boxes[:, 0], boxes[:, 2] = x1, x2
        return image[:, ::-1], boxes, form([mask.astype(dtype) * 3 for mask in masks[:, :, ::-1]])

    ours, builtin = sample(mirror), sample(None, flip_horizontal=1.0)
    assert np.array_equal(ours.image, builtin.image)
    assert np.array_equal(whole(ours), whole(builtin))
    assert np.array_equal(ours.boxes, builtin.boxes)
    assert ours.class_ids.tolist() == IDS


def test_it_comes_before_the_augmentation_of_the_configuration():
    left = sample(lambda image, boxes, masks: (image[:, :40], None, masks[:, :, :40]), flip_horizontal=1.0)
    assert np.array_equal(
        left.image[: left.letterbox.window[2], : left.letterbox.window[3]][:HEIGHT, :40].shape, (40, 40, 3)
    )
    assert left.letterbox.image_size == (HEIGHT, 40)
    assert len(left.crops) == 2  # the second object begins at column 40


def test_objects_that_vanish_are_dropped_with_their_classes():
    def cut(image, boxes, masks):
        return image[:, 20:], None, masks[:, :, 20:]

    found = sample(cut)
    assert found.class_ids.tolist() == IDS[:2]
    assert found.letterbox.image_size == (HEIGHT, WIDTH - 20)

    def nothing(image, boxes, masks, class_ids):
        return image, boxes[:0], masks[:0], class_ids[:0]

    assert sample(nothing).class_ids.shape == (0,)
    assert sample(lambda image, boxes, masks: (image, [], []), record([], [])).boxes.shape == (0, 4)
    assert sample(lambda image, boxes, masks: (image, None, np.zeros_like(masks))).crops == []


def test_objects_can_be_added_and_change_their_class():
    def paste(image, boxes, masks, class_ids):
        return image, None, np.concatenate([masks, masks[:1]]), [2.0, -1, 1, 2]  # as floats, which libraries return

    assert sample(paste).class_ids.tolist() == [2, -1, 1, 2]


def test_the_size_may_change():
    found = sample(lambda image, boxes, masks: (image.repeat(2, 0), None, masks.repeat(2, 1)))
    assert found.letterbox.image_size == (2 * HEIGHT, WIDTH)
    assert sample(lambda image, boxes, masks: (image[:1, :1], None, masks[:, :1, :1])).class_ids.tolist() == [2]


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts(channels):
    model = replace(CONFIG.model, image_channels=channels, mean_pixel=(0.0,) * channels)
    source = record(pixels=np.zeros((HEIGHT, WIDTH, channels), np.uint8))
    for gray in (lambda i, b, m: (i, b, m), lambda i, b, m: (i[:, :, 0] if channels == 1 else i, b, m)):
        rng = np.random.default_rng(0)
        found = load_sample(source, replace(CONFIG, model=model), rng, True, AugmentHook(gray))
        assert found.image.shape[2] == channels


def noise(image, boxes, masks, rng):
    return rng.integers(0, 256, image.shape, np.uint8), boxes, masks


def test_its_numbers_follow_from_the_seed_and_shift_no_others():
    assert np.array_equal(sample(noise).image, sample(noise).image)
    assert not np.array_equal(sample(noise).image, sample(noise, seed=1).image)
    plain = sample(None, flip_horizontal=0.5, scale=(0.5, 2.0))
    same = sample(lambda image, boxes, masks, rng: (rng.bytes(99) and image, boxes, masks), flip_horizontal=0.5, scale=(0.5, 2.0))  # fmt: skip  # noqa: E501
    assert np.array_equal(plain.image, same.image)


def test_it_is_not_called_outside_training():
    def fail(image, boxes, masks):
        raise AssertionError

    load_sample(record(), CONFIG, np.random.default_rng(0), False, AugmentHook(fail))


class Callable3:
    def __call__(self, first, second, third):
        return first, second, third


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, c: (a, b, c),
        lambda a, b, c, d: (a, b, c, d),
        lambda *values: values,
        lambda a, b, c, strength=0.5: (a, b, c) if strength == 0.5 else None,
        lambda a, b, c, class_ids=None: (a, b, c, class_ids),
        lambda a, b, c, d, e=1, *, f=2: [a, b, c, d],
        lambda a, b, c, *, rng: (a, b, c) if rng.random() < 1 else None,
        Callable3(),
        Callable3().__call__,
    ],
)
def test_parameters_may_have_any_name(function):
    assert sample(function).class_ids.tolist() == IDS


@pytest.mark.parametrize(
    "function",
    [lambda: 0, lambda a, b: 0, lambda a, b, rng: 0, lambda a, b, c, d, e: 0, lambda a, b, c, *, d: 0, 7, None],
)
def test_other_parameters_are_refused_at_once(function):
    with pytest.raises(ArgumentError, match=r"it takes \(image, boxes, masks\)"):
        AugmentHook(function)


def failing(image, boxes, masks):
    raise ValueError("no\nsuch  thing")


def returning(*values):
    """A function that returns what it got, except for the values that are not `...`."""

    def function(image, boxes, masks, class_ids):
        given = (image, boxes, masks, class_ids)
        return tuple(
            given[n] if value is ... else value(given[n]) if callable(value) else value
            for n, value in enumerate(values)
        )

    return function


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (failing, "test_augment_hook:failing raised ValueError: no such thing"),
        (returning(), "returned a tuple of 0; expected image, boxes, masks, class_ids"),
        (returning(..., ..., ...), "returned a tuple of 3; expected image, boxes, masks, class_ids"),
        (lambda a, b, c: None, "returned NoneType; expected image, boxes, masks"),
        (lambda a, b, c: {"image": a}, "returned dict; expected image, boxes, masks"),
        (lambda a, b, c: (a, b, c, []), "returned a tuple of 4; expected image, boxes, masks"),
        (returning(None, ..., ..., ...), r"the image NoneType; expected uint8 \[H, W, 3\]"),
        (returning(lambda i: i / 255, ..., ..., ...), "the image float64"),
        (returning(lambda i: i[:0], ..., ..., ...), r"the image uint8 \[0, 64, 3\]"),
        (returning(lambda i: i[..., :2], ..., ..., ...), r"the image uint8 \[40, 64, 2\]"),
        (returning(lambda i: i[..., 0], ..., ..., ...), r"the image uint8 \[40, 64, 1\]"),
        (returning(lambda i: np.moveaxis(i, -1, 0), ..., ..., ...), r"the image uint8 \[3, 40, 64\]"),
        (returning(lambda i: i[:, :9], ..., ..., ...), r"for object 0 the mask bool \[40, 64\]; expected \[N, 40, 9\]"),
        (returning(..., ..., None, ...), "the masks NoneType"),
        (returning(..., ..., lambda m: m[0], ...), r"the masks bool \[40, 64\]"),
        (returning(..., ..., lambda m: np.moveaxis(m, 0, -1), ...), r"object 0 the mask bool \[64, 3\]"),
        (returning(..., ..., lambda m: m * 0.5, ...), "the mask float64"),
        (returning(..., ..., lambda m: [[1]] * 3, ...), "for object 0 the mask a list of 1"),
        (returning(..., None, lambda m: m[1:], ...), "returned 2 masks for 3 objects; to remove or add objects"),
        (lambda a, b, c: (a, None, c[1:]), "returned 2 masks for 3 objects; to remove or add objects, take class_ids"),
        (returning(..., ..., ..., [1, 2]), "returned 3 masks for 2 objects"),
        (returning(..., ..., ..., [1, 2, 0]), "class id 0; expected 1 to 2"),
        (returning(..., ..., ..., [1, 2, 3]), "class id 3; expected 1 to 2"),
        (returning(..., ..., ..., [1, 2, 1.5]), "the class ids a list of 3; expected whole numbers"),
        (returning(..., ..., ..., [1, 2, float("nan")]), "expected whole numbers"),
        (returning(..., ..., ..., ["a", "b", "a"]), "expected whole numbers"),
        (returning(..., ..., ..., 1), "the class ids int; expected whole numbers"),
        (returning(..., lambda b: b[1:], ..., ...), r"the boxes float64 \[2, 4\] for 3 masks; expected x1, y1, x2, y2"),
        (returning(..., lambda b: np.c_[b, b[:, 0]], ..., ...), r"the boxes float64 \[3, 5\] for 3 masks"),
        (returning(..., lambda b: b * np.nan, ..., ...), "not finite"),
        (returning(..., lambda b: [[1], [1, 2]], ..., ...), "the boxes a list of 2"),
        (returning(..., lambda b: [["a"] * 4] * 3, ..., ...), "the boxes a list of 3"),
        (returning(..., lambda b: b[:, [1, 0, 3, 2]], ..., ...), "object 1 .* pixels; expected x1, y1, x2, y2"),
        (
            returning(..., lambda b: b / 100, ..., ...),
            "the box .* for object 0, whose mask lies elsewhere, in 8, 4, 30",
        ),
        (returning(..., lambda b: b[:, [2, 3, 0, 1]], ..., ...), "the box .* for object 0 of an image of 64 x 40"),
        (returning(..., lambda b: b + 5, ..., ...), "the box .* for object 1 of an image of 64 x 40 pixels"),
        (lambda a, b, c: (a[:, ::-1], b[::-1], c), "whose mask lies elsewhere"),
    ],
)
def test_what_it_must_not_return_names_the_image(function, message):
    with pytest.raises(TrainingError, match=f"image 'photo.png': the augmentation .*{message}") as caught:
        sample(function)
    assert str(caught.value).isprintable()


def test_a_function_is_found_in_a_file_and_in_a_module(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "helper.py").write_text("FACTOR = 2\n", encoding="utf-8")
    text = "from helper import FACTOR\ndef half(image, boxes, masks):\n    return image // FACTOR, boxes, masks\n"
    for name in ("random.py", "mine.py"):  # the first has the name of a module of Python's
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = find_hook(f"{tmp_path}/random.py:half")
    assert np.array_equal(sample(found._function).image, sample(None).image // 2)
    named = find_hook("mine:half")
    assert named.name.startswith("mine:half (SHA-256 ")
    assert named.name == find_hook("mine.py:half").name
    (tmp_path / "mine.py").write_text(text + "# another\n", encoding="utf-8")
    assert find_hook("mine.py:half").name != named.name
    for name in ("helper", "mine"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected FILE.py:NAME or MODULE:NAME"),
        ("mine", "expected FILE.py:NAME or MODULE:NAME"),
        ("mine.py:", "expected FILE.py:NAME or MODULE:NAME"),
        (":half", "expected FILE.py:NAME or MODULE:NAME"),
        ("mine.py:a b", "expected FILE.py:NAME or MODULE:NAME"),
        ("nowhere.py:half", "there is no file nowhere.py"),
        ("no_such_module_here:half", "cannot be imported: ModuleNotFoundError"),
        ("..:half", "cannot be imported"),
        ("broken.py:half", "broken.py:half cannot be imported: SyntaxError"),
        ("leaves.py:half", "leaves.py:half cannot be imported: SystemExit"),
        ("other.py:half", "other.py has no half"),
        ("other.py:value", "is no function: it takes"),
        ("other.py:two", "has the parameters .a, b."),
        ("sys:exit", "has the parameters"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def half(:\n", encoding="utf-8")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "other.py").write_text("value = 1\ndef two(a, b): pass\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match=message) as caught:
        find_hook(text)
    assert str(caught.value).isprintable()
