"""A perfect detector in tiles: merging gives the objects of the whole image, pixel for pixel."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import ndimage

from runtime.detections import Detections
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.tiles.predict import predict_tiles
from runtime.tiles.tiling import Tiling

NAMES = ("BG", "red", "green")


def edges_of(mask):
    """The edges of a bitmap: where a scan by columns enters and leaves it."""
    return np.flatnonzero(np.diff(mask.T.ravel().astype(np.int8), prepend=0, append=0)).astype(np.int64)


def detections(objects, size):
    """Exact detections of masks, each with class and score, best first."""
    objects = sorted(objects, key=lambda each: -each[2])
    boxes = []
    for mask, _, _ in objects:
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in objects], np.float32),
        class_ids=np.array([class_id for _, class_id, _ in objects], np.int32),
        mask_probabilities=np.zeros((len(objects), 4, 4), np.float32),
        image_size=size,
        class_names=NAMES,
        edges=tuple(edges_of(mask) for mask, _, _ in objects),
    )


class Painted:
    """A perfect detector: each channel of the image has the numbers of its objects, and each tile shows their parts.

    A part scores less, the less of the object it is.
    """

    class_names = NAMES

    def __init__(self, image):
        self.areas = [np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)]

    def prepare(self, image):
        size = image.shape[:2]
        return plan_letterbox(size, ResizePolicy("none")), image

    def run(self, images, windows):
        return {"images": images}

    def finish(self, outputs, letterbox):
        image = outputs["images"]
        found = []
        for channel in range(3):
            for number in np.unique(image[..., channel])[np.unique(image[..., channel]) > 0]:
                mask = image[..., channel] == number
                share = mask.sum() / self.areas[channel][number]
                found.append((mask, class_of(channel), (0.3 + 0.002 * number + 0.1 * channel) * share))
        return detections(found, image.shape[:2])


def class_of(channel):
    return (1, 1, 2)[channel]


def ellipse(y, x, tall, wide, size):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return ((rows - y) / max(tall, 0.5)) ** 2 + ((columns - x) / max(wide, 0.5)) ** 2 <= 1


def paint(random, size, count, largest):
    """Objects of all sizes, many of which touch others or lie on them; small ones of the same class on large ones."""
    image = np.zeros((*size, 3), np.uint8)
    for number in range(1, count + 1):
        channel = int(random.integers(3))
        y, x = random.uniform(0, size)
        tall, wide = np.exp(random.uniform(0, np.log(min(largest, 25) if channel == 1 else largest), 2))
        mask = ellipse(y, x, tall, wide, size)
        if random.random() < 0.3:
            mask[:] = False
            mask[int(max(0, y - tall)) : int(y + tall) + 1, int(max(0, x - wide)) : int(x + wide) + 1] = True
        image[..., channel][mask & (image[..., channel] == 0)] = number
    for channel in range(3):  # an object that others have cut apart would be several
        image[..., channel] = connected_only(image[..., channel])
    return image


def connected_only(numbers):
    """Keep of each object the part, connected by sides, that holds its first pixel."""
    kept = np.zeros_like(numbers)
    for number in set(np.unique(numbers).tolist()) - {0}:
        parts, _ = ndimage.label(numbers == number)
        kept[parts == parts[tuple(np.argwhere(parts)[0])]] = number
    return kept


def described(found):
    """What was found, in an order that does not depend on scores."""
    rows = zip(found.class_ids.tolist(), (rle["counts"] for rle in found.rles), found.boxes.tolist(), strict=True)
    return sorted((class_id, counts, tuple(box)) for class_id, counts, box in rows)


def whole(image):
    steps = Painted(image)
    return steps.finish({"images": image}, None)


def in_tiles(image, tile, overlap, batch_size=1):
    return predict_tiles(Painted(image), image, Tiling(tile, overlap), batch_size)


def assert_whole(image, tile, overlap):
    assert described(in_tiles(image, tile, overlap)) == described(whole(image))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(65, 260), st.integers(65, 260)),
    count=st.integers(0, 20),
    largest=st.sampled_from([10, 30, 100, 250]),
    tile=st.integers(64, 130),
    overlap=st.sampled_from([0.05, 0.1, 0.2, 0.33, 0.5, 0.7]),
)
def test_any_tiles_give_the_objects_of_the_whole(seed, size, count, largest, tile, overlap):
    assert_whole(paint(np.random.default_rng(seed), size, count, largest), tile, overlap)


def blank(height, width):
    return np.zeros((height, width, 3), np.uint8)


def test_an_object_that_spans_many_tiles_is_one():
    image = blank(400, 500)
    image[20:390, 30:470, 0] = 1
    image[:, :, 2] = 5  # and one that fills the image
    found = in_tiles(image, 100, 0.2)
    assert described(found) == described(whole(image))
    assert [found.names[row] for row in range(2)] == ["green", "red"]


@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("place", range(60, 104, 4))
def test_neighbors_of_one_class_are_not_fused(place, gap):
    """They touch, wherever the seam is: at 64, 80 or between."""
    image = blank(100, 180)
    image[10:60, 5:place, 0] = 1
    image[10:60, place + gap : 175, 0] = 2
    image[60 + gap : 90, 5:175, 0] = 3
    assert_whole(image, 80, 0.2)


@pytest.mark.parametrize("left", range(40, 100, 5))
def test_a_small_object_on_a_large_one_of_its_class_stays(left):
    """The small one is complete in a tile that shows only a part of the large one."""
    image = blank(90, 200)
    image[10:80, 5:190, 0] = 1
    image[30:44, left : left + 14, 1] = 2
    assert_whole(image, 90, 0.3)


def test_branches_that_meet_in_another_tile_are_one():
    """A U on its side; a tile that shows its ends alone has two detections of it."""
    image = blank(80, 140)
    image[10:20, 20:130, 0] = image[60:70, 20:130, 0] = image[10:70, 120:130, 0] = 1

    class Apart(Painted):
        def finish(self, outputs, letterbox):
            parts, count = ndimage.label(outputs["images"][..., 0])
            masks = [parts == number for number in range(1, count + 1)]
            return detections([(mask, 1, mask.sum() / 10_000) for mask in masks], parts.shape)

    found = predict_tiles(Apart(image), image, Tiling(80, 0.3))
    assert described(found) == described(whole(image))


class Listed:
    """Finds in each tile what is listed for it: masks as boxes in the frame of the image, class and score."""

    class_names = NAMES

    def __init__(self, *tiles):
        self.tiles = list(tiles)

    def prepare(self, image):
        return plan_letterbox(image.shape[:2], ResizePolicy("none")), image

    def run(self, images, windows):
        return {"images": images}

    def finish(self, outputs, letterbox):
        objects = []
        image = outputs["images"]
        origin = image[0, 0, 0].astype(int)
        for (x1, y1, x2, y2), class_id, score in self.tiles.pop(0):
            mask = np.zeros(image.shape[:2], np.bool_)
            mask[y1:y2, max(x1 - origin, 0) : x2 - origin] = True
            assert mask.any()
            objects.append((mask, class_id, score))
        return detections(objects, image.shape[:2])


def listed(*tiles):
    """The objects of an image of two tiles, x 0..100 and 80..180."""
    image = blank(100, 180)
    image[:, :, 0] = np.arange(180)
    found = predict_tiles(Listed(*tiles), image, Tiling(100, 0.2))
    rows = zip(found.boxes.tolist(), found.class_ids.tolist(), found.scores.round(4).tolist(), strict=True)
    return [(tuple(map(int, box)), class_id, round(score, 3)) for box, class_id, score in rows]


def test_what_one_tile_shows_completely_wins():
    """Even if the part at the side of the other tile scores more, and is not drawn exactly."""
    assert listed([((60, 20, 96, 60), 1, 0.7)], [((80, 18, 95, 61), 1, 0.9)]) == [((60, 20, 96, 60), 1, 0.7)]
    assert listed([((84, 20, 100, 60), 1, 0.9)], [((85, 20, 130, 60), 1, 0.6)]) == [((85, 20, 130, 60), 1, 0.6)]


def test_of_two_complete_ones_the_better_wins():
    found = listed([((84, 20, 96, 60), 1, 0.7)], [((85, 21, 97, 60), 1, 0.8)])
    assert found == [((85, 21, 97, 60), 1, 0.8)]


def test_a_cut_object_whose_mask_ends_short_of_the_seam_is_not_taken_for_complete():
    assert listed([((20, 20, 98, 60), 1, 0.9)], [((82, 20, 160, 60), 1, 0.5)]) == [((20, 20, 160, 60), 1, 0.9)]


def test_parts_have_the_best_score_and_classes_are_apart():
    found = listed([((20, 20, 100, 60), 1, 0.6)], [((80, 20, 160, 60), 1, 0.75), ((80, 20, 160, 60), 2, 0.5)])
    assert found == [((20, 20, 160, 60), 1, 0.75), ((80, 20, 160, 60), 2, 0.5)]


def test_two_objects_of_one_tile_stay_two():
    """A mask of the other tile that covers both does not join them if they overlap, nor does it vanish."""
    found = listed([((20, 20, 100, 60), 1, 0.6), ((30, 25, 100, 60), 1, 0.5)], [((80, 20, 160, 60), 1, 0.75)])
    assert found == [((20, 20, 160, 60), 1, 0.75), ((30, 25, 100, 60), 1, 0.5)]


def test_what_another_tile_takes_for_a_better_object_is_none():
    """A tile that shows both masks would have found two objects; unless they share little, or have two classes."""
    good, weak, apart = ((84, 20, 96, 60), 1, 0.9), ((84, 30, 96, 80), 1, 0.6), ((84, 50, 96, 90), 1, 0.6)
    assert listed([good, weak], [good]) == listed([good], [good, weak]) == [good]
    assert listed([good], [weak]) == listed([weak], [good]) == [good]
    assert listed([good, weak], [good, weak]) == [good, weak]
    assert listed([good, apart], [good]) == [good, apart]
    other = ((84, 30, 96, 80), 2, 0.6)
    assert listed([good, other], [good]) == [good, other]
    mostly_hidden = ((50, 20, 96, 60), 1, 0.6)
    assert listed([good, mostly_hidden], [good]) == [good, mostly_hidden]


def test_a_sliver_whose_mask_is_wrong_is_not_an_object_of_its_own():
    found = listed([((60, 20, 84, 60), 1, 0.9)], [((80, 22, 86, 58), 1, 0.4)])
    assert found == [((60, 20, 84, 60), 1, 0.9)]


def test_without_overlap_parts_stay_parts():
    image = blank(64, 128)
    image[10:50, 30:100, 0] = 1
    assert len(in_tiles(image, 64, 0)) == 2


def test_results_do_not_depend_on_the_batch():
    image = paint(np.random.default_rng(3), (210, 190), 15, 60)
    one, three = in_tiles(image, 70, 0.2), in_tiles(image, 70, 0.2, 3)
    for name in ("boxes", "scores", "class_ids", "mask_probabilities"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
    assert one.rles == three.rles
    assert (np.diff(one.scores) <= 0).all()


def test_merged_probabilities_are_a_coarse_form_of_the_mask():
    image = blank(100, 180)
    image[20:60, 20:160, 0] = 1
    image[20:40, 20:90, 0] = 0
    (found,) = in_tiles(image, 100, 0.2)
    np.testing.assert_array_equal(found.mask_probabilities[0], [[0, 0, 1, 1]] * 2 + [[1, 1, 1, 1]] * 2)
