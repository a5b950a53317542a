"""Drawing: where pixels change, where they must not, and that nothing leaves the picture."""

import inspect
import time
import tracemalloc
import warnings
from itertools import product

import numpy as np
import pytest
from PIL import Image

from runtime.detections import Detections
from runtime.errors import ImageError, InputError
from runtime.output.draw import DrawnObject, DrawOptions, draw_detections, draw_objects, instance_color
from runtime.output.labels import ink

NAMES = ("BG", "person", "Größe 犬", "a name far too long for any small picture", "two\nlines", "")


def make(size, boxes, class_ids=None, fill=1.0):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.linspace(0.97, 0.5, count).astype(np.float32),
        np.array(class_ids or [1] * count, np.int32),
        np.full((count, 28, 28), fill, np.float32),
        size,
        NAMES,
    )


def gray(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def changed(drawn, before):
    return (np.asarray(drawn) != before).any(axis=2)


def test_tint_and_outline():
    before = gray(100, 120)
    found = make((100, 120), [(20, 30, 60, 80)])
    drawn = np.asarray(draw_detections(before, found, boxes=False, labels=False, opacity=0.25))
    np.testing.assert_array_equal(changed(drawn, before), found.masks[0])
    color = np.array(instance_color(0))
    assert np.abs(drawn[50, 40] - (0.75 * 100 + 0.25 * color)).max() <= 1
    for y, x in ((30, 40), (79, 40), (50, 20), (50, 59)):  # the outline lies inside the mask
        np.testing.assert_array_equal(drawn[y, x], color)
    assert (before == 100).all()


@pytest.mark.parametrize("boxes", [[(40, 40, 60, 60), (10, 10, 90, 90)], [(10, 10, 90, 90), (40, 40, 60, 60)]])
def test_small_boxes_are_drawn_over_large_ones_without_masks_too(boxes):
    boxes = [(box[0], 10, box[2], 60) for box in boxes]  # with a common side
    found = make((100, 100), boxes)
    small = min((0, 1), key=lambda row: boxes[row][2] - boxes[row][0])
    for masks in (True, False):
        drawn = np.asarray(draw_detections(gray(100, 100), found, masks=masks, labels=False))
        np.testing.assert_array_equal(drawn[10, 45], instance_color(small))


@pytest.mark.parametrize("option", ["masks", "boxes", "labels"])
@pytest.mark.parametrize("value", ["no", 0, None, np.array([True, False])])
def test_switches_are_true_or_false(option, value):
    with pytest.raises(InputError, match=f"{option} is .*: expected True or False"):
        draw_detections(gray(20, 20), make((20, 20), []), **{option: value})
    draw_detections(gray(20, 20), make((20, 20), []), **{option: np.False_})


def test_box_is_drawn_on_its_own_outermost_pixels():
    before = gray(100, 120)
    drawn = draw_detections(before, make((100, 120), [(20, 30, 60, 80)]), masks=False, labels=False)
    expected = np.zeros((100, 120), bool)
    expected[30:80, 20:60] = True
    expected[31:79, 21:59] = False
    np.testing.assert_array_equal(changed(drawn, before), expected)


def test_small_masks_stay_visible_over_large_ones():
    for order in ([0, 1], [1, 0]):
        boxes = [[(0, 0, 100, 100), (40, 40, 60, 60)][i] for i in order]
        drawn = draw_detections(gray(100, 100), make((100, 100), boxes), boxes=False, labels=False, opacity=1)
        small = order.index(1)
        assert drawn.getpixel((50, 50)) == instance_color(small)
        assert drawn.getpixel((10, 10)) == instance_color(1 - small)


def label_area(size, box, class_id=1):
    before = gray(*size)
    drawn = draw_detections(before, make(size, [box], [class_id]), masks=False, boxes=False)
    ys, xs = np.nonzero(changed(drawn, before))
    return ys.min(), xs.min(), ys.max() + 1, xs.max() + 1


def test_label_sits_above_the_box_or_below_or_inside():
    size = (300, 400)
    top, left, bottom, _ = label_area(size, (50, 100, 200, 200))
    assert (bottom, left) == (100, 50)
    assert label_area(size, (50, 0, 200, 200))[0] == 200  # no room above
    inside_top, _, inside_bottom, _ = label_area(size, (50, 0, 200, 300))  # none below either
    assert (inside_top, inside_bottom - inside_top) == (0, bottom - top)
    assert label_area(size, (390, 100, 400, 200))[3] == 400  # moved left into the picture


@pytest.mark.parametrize("class_id", range(1, 6))
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (200, 1500), (1500, 200), (3, 90)])
def test_any_name_in_any_picture(size, class_id):
    height, width = size
    boxes = [
        (0, 0, width, height),
        (-5, -5, 3, 3),
        (width - 1, height - 1, width + 9, height + 9),
        (2, 2, 2, 2),
    ]
    drawn = draw_detections(gray(*size), make(size, boxes, [class_id] * 4))
    assert (drawn.mode, drawn.size) == ("RGB", (width, height))
    assert changed(drawn, gray(*size)).any()


def test_long_names_are_shortened_to_the_picture():
    _, left, _, right = label_area((64, 64), (0, 20, 64, 64), class_id=3)
    assert 40 < right - left <= 64


def test_labels_of_the_same_box_do_not_cover_each_other():
    size = (300, 400)
    found = make(size, [(50, 100, 200, 200)] * 3)
    drawn = np.asarray(draw_detections(gray(*size), found, masks=False, boxes=False))
    counts = [(drawn == instance_color(row)).all(axis=2).sum() for row in range(3)]
    assert min(counts) > 0.9 * max(counts)


def test_text_contrasts_with_its_tag():
    def luminance(color):  # WCAG 2
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(color) / 255]
        return np.dot(parts, [0.2126, 0.7152, 0.0722])

    for tag in [instance_color(row) for row in range(100)] + list(product(range(0, 256, 15), repeat=3)):
        dark, light = sorted([luminance(tag), luminance(ink(tag))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5


# What is left of linear red, green and blue without one kind of cones: Machado, Oliveira and Fernandes, 2009.
COLOR_BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    "none": np.eye(3),
}


def oklab(colors, view):
    """Colors [N, 3], 0..255, where equal distances look about equal."""
    share = colors / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ np.array(view).T
    cones = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.68069955, 0.10739696],
        [0.08830246, 0.28171884, 0.6299787],
    ]
    axes = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.9779985, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.cbrt(np.clip(linear, 0, 1) @ np.array(cones).T) @ np.array(axes).T


@pytest.mark.parametrize("view", COLOR_BLIND)
def test_colors_are_distinct_for_color_blind_people_too(view):
    """Hues at equal distances come as close as 0.013 in the first ten colors, and 0 in the first 81."""
    for count, least in ((6, 0.085), (10, 0.07), (24, 0.035), (81, 0.02)):
        colors = oklab(np.array([instance_color(row) for row in range(count)]), COLOR_BLIND[view])
        apart = np.linalg.norm(colors[:, None] - colors, axis=2) + np.eye(count)
        assert apart.min() > least


def test_colors_are_fixed_and_repeat_after_a_hundred():
    assert [instance_color(row) for row in (0, 1, 2)] == [(34, 153, 255), (255, 119, 17), (255, 221, 34)]
    assert len({instance_color(row) for row in range(100)}) == 100
    assert instance_color(103) == instance_color(3)


def test_one_color_per_object_or_per_class():
    boxes, ids = [(5, 5, 25, 35), (35, 5, 55, 35), (65, 5, 85, 35)], [2, 1, 2]
    found = make((40, 90), boxes, ids)
    centers = [(15, 20), (45, 20), (75, 20)]
    by_object, by_class = (
        [found.draw(gray(40, 90), opacity=1, labels=False, **chosen).getpixel(center) for center in centers]
        for chosen in ({}, {"color_by": "class"})
    )
    assert by_object == [instance_color(row) for row in range(3)]
    assert by_class == [instance_color(1), instance_color(0), instance_color(1)]
    # In another image, the classes keep their colors.
    other = make((40, 90), boxes[:2], [1, 2]).draw(gray(40, 90), opacity=1, labels=False, color_by="class")
    assert [other.getpixel(center) for center in centers[:2]] == [instance_color(0), instance_color(1)]
    for wrong in ("rank", 1, None, ["class"]):
        with pytest.raises(InputError, match=r"color_by is .*expected one of object, class"):
            found.draw(gray(40, 90), color_by=wrong)


def test_switches_and_empty_detections_change_nothing():
    before = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = make((40, 50), [(5, 5, 30, 30)])
    drawn = draw_detections(before, found, masks=False, boxes=False, labels=False)
    np.testing.assert_array_equal(np.asarray(drawn), before)
    np.testing.assert_array_equal(np.asarray(make((40, 50), []).draw(before)), before)


def test_sources_and_refusals(tmp_path):
    found = make((40, 50), [(5, 5, 30, 30)])
    path = tmp_path / "gray.png"
    Image.fromarray(gray(40, 50)[:, :, 0]).save(path)
    np.testing.assert_array_equal(np.asarray(found.draw(path)), np.asarray(found.draw(gray(40, 50))))
    clear = np.dstack([gray(40, 50), np.zeros((40, 50), np.uint8)])
    Image.fromarray(clear).save(path)  # alpha is dropped
    np.testing.assert_array_equal(np.asarray(found.draw(path)), np.asarray(found.draw(gray(40, 50))))
    with pytest.raises(InputError, match="50 x 40"):
        found.draw(gray(50, 40))
    with pytest.raises(InputError, match="opacity"):
        found.draw(gray(40, 50), opacity=1.5)
    with pytest.raises(ImageError):
        found.draw(tmp_path / "missing.png")


def test_boxes_are_closed_at_the_border_of_the_image_and_lines_of_small_objects_are_thin():
    size = (2000, 1700)  # large enough for lines of 6 pixels
    before = gray(*size)
    drawn = np.asarray(draw_detections(before, make(size, [(-50, 900, 400, 2100)]), masks=False, labels=False))
    inside = np.ones((1100, 400), bool)
    inside[6:-6, 6:-6] = False
    expected = np.zeros(size, bool)
    expected[900:, :400] = inside
    np.testing.assert_array_equal((drawn != before).any(axis=2), expected)
    one, ten = make(size, [(700, 30, 701, 31)]), make(size, [(30, 30, 40, 40)])
    assert changed(one.draw(before, labels=False), before).sum() == 1
    drawn = np.asarray(ten.draw(before, labels=False))
    assert (drawn[31:39, 31:39] != instance_color(0)).any(axis=2).all()  # the tint lets the object through


def test_outlines_are_drawn_around_holes_and_over_the_tint_of_smaller_objects():
    ring = np.ones((1, 28, 28), np.float32)
    ring[:, 9:19, 9:19] = 0
    size = (100, 100)
    small = make(size, [(10, 10, 94, 94), (6, 40, 60, 60)])
    found = Detections(
        small.boxes, small.scores, small.class_ids, np.concatenate([ring, np.ones_like(ring)]), size, NAMES
    )
    drawn = np.asarray(found.draw(gray(*size), boxes=False, labels=False))
    outer, inner = found.masks
    hole = ~outer & (np.indices(size) >= 20).all(axis=0) & (np.indices(size) < 84).all(axis=0)
    near_hole = np.zeros(size, bool)
    for axis, step in product((0, 1), (-1, 1)):
        near_hole |= np.roll(hole, step, axis)
    near_hole &= outer
    assert near_hole.sum() > 80
    over = np.zeros(size, bool)
    over[41:59, 7:59] = True  # the smaller object without its outline
    assert (drawn[near_hole & ~(inner & ~over)] == instance_color(0)).all()
    assert (drawn[hole & ~inner] == 100).all()


def test_an_object_without_name_and_tail_gets_no_label():
    crop = np.ones((20, 30), bool)
    objects = [DrawnObject((crop, (40, 50)), (50, 40, 80, 60), "", tail, (255, 0, 0)) for tail in ("", " 0.5")]
    bare, labeled = (draw_objects(gray(100, 120), [each], boxes=False) for each in objects)
    mask = np.zeros((100, 120), bool)
    mask[40:60, 50:80] = True
    np.testing.assert_array_equal(changed(bare, gray(100, 120)), mask)
    assert changed(labeled, gray(100, 120)).sum() > mask.sum()


def drawn_plainly(pixels, found, opacity):
    """Tint and outline as documented, in floats and pixel by pixel of the outline."""
    most = max(1, round((pixels.shape[0] * pixels.shape[1]) ** 0.5 / 320))
    drawn, lines = pixels.copy(), {}
    for row in np.argsort(-found.masks.sum((1, 2)), kind="stable"):
        mask, (x1, y1, x2, y2) = found.masks[row], found.pixel_boxes[row].tolist()
        drawn[mask] = ((1 - opacity) * pixels[mask] + opacity * np.array(instance_color(row))).astype(np.uint8)
        inner = np.pad(mask, 1)
        for _ in range(max(1, min(most, round(min(x2 - x1, y2 - y1) / 16)))):
            core = inner[1:-1, 1:-1]
            core = core & inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
            inner = np.pad(core, 1)
        lines[row] = mask & ~inner[1:-1, 1:-1]
    for row, line in lines.items():
        drawn[line] = instance_color(row)
    return drawn


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (150, 90), (700, 900), (2000, 1700)])
@pytest.mark.parametrize("opacity", [0, 0.45, 1])
def test_the_same_as_drawn_plainly(size, opacity):
    rng = np.random.default_rng(sum(size))
    corners = rng.uniform(-0.2, 0.7, (6, 2)) * size[::-1]
    boxes = np.hstack([corners, corners + rng.uniform(0.05, 1, (6, 2)) * size[::-1]])
    found = make(size, boxes)
    masks = rng.random((6, 28, 28), np.float32)
    found = Detections(found.boxes, found.scores, found.class_ids, masks, size, NAMES)
    before = rng.integers(0, 256, (*size, 3), np.uint8)
    drawn = draw_detections(before, found, boxes=False, labels=False, opacity=opacity)
    expected = drawn_plainly(before, found, opacity)
    assert np.abs(np.asarray(drawn).astype(int) - expected).max() <= 1  # rounded in float32
    np.testing.assert_array_equal(
        np.asarray(drawn), np.asarray(found.draw(before, boxes=False, labels=False, opacity=opacity))
    )


def large(count, size):
    """Round masks, each about half as large as the image."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.3, (count, 2)) * size[::-1]
    boxes = np.hstack([corners, corners + 0.7 * np.array(size[::-1])])
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    round_masks = np.repeat((np.hypot(y, x) < 0.9)[None], count, 0).astype(np.float32)
    rows = np.ones(count, np.int32)
    return Detections(boxes.astype(np.float32), np.ones(count, np.float32), rows, round_masks, size, NAMES)


@pytest.mark.parametrize("draw", ["draw", "splash"])
def test_one_large_mask_at_a_time_is_in_memory(draw):
    size = (1500, 2000)
    found, before = large(40, size), gray(*size)
    tracemalloc.start()
    try:
        getattr(found, draw)(before)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * size[0] * size[1]  # forty masks would take 20 bytes per pixel, floats of one mask 24


def test_large_masks_take_no_longer_than_supervision():
    """In turns; supervision tints only, with masks that are made before. Drawing plainly takes longer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that OpenCV is not installed
        supervision = pytest.importorskip("supervision")
    size = (2000, 2400)
    found, before, pen = large(6, size), gray(*size), supervision.MaskAnnotator()
    theirs = found.to_supervision()
    works = (
        lambda: found.draw(before),
        lambda: pen.annotate(before.copy(), theirs),
        lambda: drawn_plainly(before, found, 0.45),
    )

    def seconds(work):
        begin = time.process_time()
        work()
        return time.process_time() - begin

    ours, others, plain = np.min([[seconds(work) for work in works] for _ in range(2)], axis=0)
    assert ours < others
    assert ours < plain / 2


def test_methods_pass_on_every_option():
    options = inspect.signature(draw_detections).parameters.values()
    assert [each.name for each in options if each.kind is each.KEYWORD_ONLY] == list(DrawOptions.__annotations__)
