"""Where labels are written and what they show."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageFont

from runtime.output import labels
from runtime.output.labels import LabeledObject, letter_size, place_tags, readable_name, write_labels, written

GREEN = (0, 221, 136)


def crowd(count, size, seed):
    """Boxes of all sizes, many of them on others, across the borders, thin, empty and a pixel large."""
    rng = np.random.default_rng(seed)
    width, height = size
    corners = rng.uniform(-0.1, 1, (count, 2)) * size
    sides = rng.gamma(0.7, 0.1, (count, 2)) * size
    boxes = np.rint(np.hstack([corners, corners + sides])).astype(int)
    boxes[::17, 2:] = boxes[::17, :2]
    boxes[1::17, 2:] = boxes[1::17, :2] + 1
    boxes[2::17] = [0, 0, width, height]
    return boxes


def write(size, boxes, names, tails=(" 0.97",)):
    canvas = Image.new("RGB", size, (90, 90, 90))
    objects = [
        LabeledObject(box, names[row % len(names)], tails[row % len(tails)], GREEN)
        for row, box in enumerate(np.asarray(boxes).tolist())
    ]
    return canvas, write_labels(canvas, objects)


def shared(first, second):
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    return max(wide, 0) * max(high, 0)


@pytest.mark.parametrize("size", [(300, 200), (1333, 800), (90, 700), (640, 512)])
@pytest.mark.parametrize("count", [1, 30, 250])
def test_labels_cover_neither_each_other_nor_much_of_an_object_and_are_inside_the_image(size, count):
    boxes = crowd(count, size, seed=count + size[0])
    canvas, tags = write(size, boxes, ["person", "Q", "a name of " + 20 * "many letters "], [" 0.97", " 1.00", ""])
    written_tags = [tag for tag in tags if tag is not None]
    assert len(tags) == count
    assert len(written_tags) >= min(count, 3) - 2 * (size[0] == 90)
    clipped = np.clip(boxes, 0, [*size, *size])
    for tag in written_tags:
        assert tag[0] >= 0
        assert tag[1] >= 0
        assert tag[2] <= size[0]
        assert tag[3] <= size[1]
        for box in clipped.tolist():
            assert shared(tag, box) <= 0.301 * max(1, (box[2] - box[0]) * (box[3] - box[1]))
    for row, tag in enumerate(written_tags):
        wider = (tag[0] - 1, tag[1] - 1, tag[2] + 1, tag[3] + 1)
        assert not any(shared(wider, other) for other in written_tags[row + 1 :])
    # Nothing is drawn elsewhere, and the same labels are drawn again.
    outside = np.ones(size[::-1], bool)
    for left, top, right, bottom in written_tags:
        outside[top:bottom, left:right] = False
    assert (np.asarray(canvas)[outside] == 90).all()
    again, places = write(size, boxes, ["person", "Q", "a name of " + 20 * "many letters "], [" 0.97", " 1.00", ""])
    assert places == tags
    assert again.tobytes() == canvas.tobytes()


@pytest.mark.parametrize("name", ["person", "Ågj|{", "f" * 28, "W" * 200, "j"])
@pytest.mark.parametrize("size", [(300, 200), (1333, 800), (4000, 3000)])
def test_no_letter_is_cut(size, name):
    """The tag has a margin of its own color on all sides of the letters."""
    canvas, (tag,) = write(size, [(size[0] // 3, size[1] // 2, size[0] // 2, size[1] - 9)], [name])
    shown = np.asarray(canvas.crop(tag))
    assert (shown != GREEN).any()
    for edge in (shown[0], shown[-1], shown[:, 0], shown[:, -1]):
        assert (edge == GREEN).all()
    across = (shown != GREEN).any(axis=2).any(axis=0).nonzero()[0]
    assert len(across) > shown.shape[1] / 2


def test_large_objects_are_labeled_first_and_a_label_gives_way_by_its_score_first():
    boxes = [(10, 40, 30, 60), (0, 0, 200, 100)]
    first = place_tags(np.array(boxes), [[(60, 15)], [(60, 15)]], (200, 130))
    alone = place_tags(np.array(boxes[1:]), [[(60, 15)]], (200, 130))
    assert first[1] == alone[0]
    # Between two neighbors, there is room for the short form only.
    row = [(0, 0, 40, 100), (40, 0, 80, 100), (80, 0, 120, 100)]
    sizes = [[], [(100, 40), (40, 20)], []]
    assert place_tags(np.array(row), sizes, (120, 100))[1][0] == 1
    assert place_tags(np.array(row), [[], [(100, 90)], []], (120, 100)) == [None] * 3


def test_small_objects_in_a_crowd_have_no_label_but_alone_they_do():
    y, x = np.mgrid[0:200:8, 0:300:8].reshape(2, -1)
    _, tags = write((300, 200), np.stack([x, y, x + 7, y + 7], axis=1), ["droplet"])
    assert sum(tag is not None for tag in tags) < len(tags) / 20
    for box in ((150, 100, 151, 101), (0, 0, 1, 1), (299, 199, 300, 200)):
        _, (tag,) = write((300, 200), [box], ["droplet"])
        assert tag is not None
        assert shared((tag[0] - 1, tag[1] - 1, tag[2] + 1, tag[3] + 1), box)


def test_a_label_stays_in_its_place_when_its_box_moves_by_a_pixel():
    """As in a video: it moves with the box, and does not jump to another side of it."""
    base = crowd(40, (640, 512), seed=5)
    offsets = []
    for step in range(6):
        boxes = base + step % 2
        _, tags = write((640, 512), boxes, ["person"])
        offsets.append(
            [tag and (tag[0] - box[0], tag[1] - box[1]) for tag, box in zip(tags, boxes.tolist(), strict=True)]
        )
    for first, second in pairwise(offsets):
        pairs = [(a, b) for a, b in zip(first, second, strict=True) if a and b]
        still = [max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 1 for a, b in pairs]
        assert np.mean(still) > 0.9


def test_letters_grow_with_the_image_and_stay_readable():
    assert [letter_size(size) for size in ((1, 1), (300, 200), (1333, 800), (4000, 3000))] == [11, 11, 17, 58]


def test_names_are_shortened_and_scores_kept():
    long, short = (write((4000, 3000), [(900, 900, 3000, 2000)], [name])[1][0] for name in ("x" * 200, "x" * 29))
    assert long == short
    assert long[2] - long[0] < 4000 / 4
    _, (narrow,) = write((64, 64), [(0, 20, 64, 64)], ["abcdefghijklmnopqrstuvwxyz"])
    assert narrow is not None  # the name does not fit, so it is shortened


@pytest.fixture
def fonts(monkeypatch):
    """Choose the installed fonts."""

    def choose(*names):
        monkeypatch.setattr(labels, "_SYSTEM_FONTS", names)
        for cached in (labels._installed_fonts, labels.written, labels._word, labels._font):
            cached.cache_clear()

    yield choose
    monkeypatch.undo()
    choose(*labels._SYSTEM_FONTS)
    monkeypatch.undo()


def test_names_that_no_font_has_lose_accents_or_become_the_id_and_the_log_says_so(fonts, caplog):
    fonts("no-such-font.ttf")
    with caplog.at_level(logging.WARNING):
        assert written("Größe") == ("Gro?e", None)
        assert written("piñata") == ("pinata", None)
        assert readable_name("piñata", 3) == "piñata"
        assert [readable_name(name, 7) for name in ("犬", "кошка", "\U0001f431")] == ["class 7"] * 3
    assert "'犬'" in caplog.text
    assert "no-such-font.ttf" in caplog.text
    caplog.clear()
    assert readable_name("犬", 8) == "class 8"
    assert readable_name("person", 1) == "person"
    assert readable_name("", 1) == ""
    assert caplog.text == ""  # said once; plain names need nothing
    assert written("two\nlines\x07") == ("two lines?", None)


@pytest.mark.parametrize("size", [(64, 64), (200, 200), (4000, 3000)])
def test_missing_letters_are_reported_once_however_much_a_name_is_shortened(size, fonts, caplog):
    fonts("no-such-font.ttf")
    name = "ein sehr langer Name, größer als groß, für ein Objekt"
    for _ in range(2):
        write(size, [(0, 20, 64, 64)], [readable_name(name, 1)])
    assert len(caplog.records) == 1
    assert repr(name) in caplog.text


def test_an_installed_font_that_has_all_letters_is_used(fonts, caplog):
    matplotlib = pytest.importorskip("matplotlib")
    path = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    fonts("no-such-font.ttf", path)
    assert written("кошка") == ("кошка", path)
    assert written("person") == ("person", None)
    assert readable_name("犬", 7) == "class 7"  # that font does not have it
    assert "'犬'" in caplog.text
    expected = ImageFont.truetype(path, 17).getlength("кошка")
    _, (tag,) = write((1333, 800), [(100, 100, 400, 400)], ["кошка"], [""])
    assert tag[2] - tag[0] == pytest.approx(expected, abs=12)
