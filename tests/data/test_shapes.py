"""The synthetic shapes: what is drawn is what the masks say, and the files hold the same."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.synthetic import scene as shape_scene
from maskrcnn.data.synthetic.clutter import SPREAD, clutter
from maskrcnn.data.synthetic.geometry import CIRCLE, SQUARE, TRIANGLE, Shape, draw_shape
from maskrcnn.data.synthetic.shapes import CLASS_NAMES, draw_shapes, shapes_dataset, write_shapes
from maskrcnn.errors import DatasetError
from runtime.errors import OutputError
from runtime.masks.rle import decode

SIDE = 60.0


@pytest.fixture(scope="module")
def pictures():
    return [draw_shapes(7, index) for index in range(150)]


def turned(class_id, seed):
    """A shape of 60 pixels, and the places (y, x) of its pixels and of those outside, from its centre of mass."""
    center = np.array([50.3, 41.8])
    shape = draw_shape(class_id, SIDE, center, np.random.default_rng(seed))
    inside, outside = (np.argwhere(part) + shape.origin + 0.5 - center for part in (shape.inside, ~shape.inside))
    return shape, inside, outside


@pytest.mark.parametrize("seed", range(6))
def test_a_square_has_its_area_inner_and_outer_radius(seed):
    shape, inside, outside = turned(SQUARE, seed)
    assert shape.inside.sum() == pytest.approx(SIDE**2, rel=0.02)
    assert np.hypot(*inside.T).max() == pytest.approx(SIDE / 2**0.5, abs=1)
    assert np.hypot(*outside.T).min() == pytest.approx(SIDE / 2, abs=1)


def test_a_circle_is_all_pixels_within_its_radius():
    shape, inside, outside = turned(CIRCLE, 0)
    assert shape.inside.sum() == pytest.approx(np.pi * SIDE**2 / 4, rel=0.02)
    assert (np.hypot(*inside.T) < SIDE / 2 + 1e-5).all()
    assert (np.hypot(*outside.T) > SIDE / 2 - 1e-5).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_triangle_has_three_corners_about_its_centre_of_mass(seed):
    shape, inside, outside = turned(TRIANGLE, seed)
    height = 2 * shape.inside.sum() / SIDE
    assert 0.74 * SIDE < height < 1.12 * SIDE
    np.testing.assert_allclose(inside.mean(axis=0), 0, atol=0.3)
    # Distances of the nearest edge and of the farthest corner from there.
    nearest = min(height / 3, height * SIDE / 3 / np.hypot(height, SIDE / 2))
    assert np.hypot(*outside.T).min() == pytest.approx(nearest, abs=1)
    assert np.hypot(*inside.T).max() == pytest.approx(max(2 * height / 3, np.hypot(height / 3, SIDE / 2)), abs=2.5)


def test_half_of_the_shapes_are_upright():
    upright = 0
    for seed in range(300):
        inside = turned(SQUARE, seed)[0].inside
        upright += np.count_nonzero(inside) == np.prod([np.ptp(axis) + 1 for axis in np.nonzero(inside)])
    assert 120 < upright < 180


@pytest.mark.parametrize("class_id", [SQUARE, CIRCLE, TRIANGLE])
def test_coverage_is_the_share_of_the_pixel(class_id):
    shape, _, _ = turned(class_id, 3)
    assert shape.coverage.dtype == np.float32
    assert shape.coverage.sum() == pytest.approx(shape.inside.sum(), rel=0.02)
    assert np.array_equal(shape.coverage > 0.5, shape.inside)
    assert not shape.coverage[[0, -1]].any()
    assert not shape.coverage[:, [0, -1]].any()


@pytest.mark.parametrize("origin", [(-3, 2), (4, -2), (5, 6), (-1, -1), (-20, 3), (3, 40)])
def test_clipping_keeps_what_is_in_the_picture(origin):
    rng = np.random.default_rng(0)
    inside = rng.random((6, 5)) < 0.5
    shape = Shape(inside.astype(np.float32), inside, origin).clip((9, 8))
    found = np.zeros((9, 8), bool)
    found[shape.window] = shape.inside
    canvas = np.zeros((100, 100), bool)
    canvas[30 + origin[0] :, 30 + origin[1] :][:6, :5] = inside
    assert np.array_equal(found, canvas[30:39, 30:38])
    assert shape.coverage.shape == shape.inside.shape


def test_pictures_and_masks_have_the_promised_form(pictures):
    for image, masks, class_ids in pictures:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert all(160 <= side <= 256 for side in image.shape[:2])
        assert len(masks) == len(class_ids) <= 7
        assert all(mask.dtype == bool and mask.shape == image.shape[:2] for mask in masks)
        assert all(mask.sum() >= 60 for mask in masks)
        assert set(class_ids) <= {1, 2, 3}
    assert len({image.shape for image, _, _ in pictures}) > 100


def test_no_pixel_belongs_to_two_shapes(pictures):
    assert all(np.sum(masks, axis=0).max() == 1 for _, masks, _ in pictures if masks)


def test_the_set_is_varied(pictures):
    counts = np.bincount([len(masks) for _, masks, _ in pictures], minlength=8)
    assert (counts[1:] >= 8).all()
    classes = np.bincount([i for _, _, class_ids in pictures for i in class_ids], minlength=4)[1:]
    assert classes.min() > 0.25 * classes.sum()
    areas = np.concatenate([[mask.sum() for mask in masks] for _, masks, _ in pictures])
    assert areas.min() < 200
    assert areas.max() > 6000
    empty = sum(not draw_shapes(1, index, (32, 32))[1] for index in range(800))
    assert 8 < empty < 48  # about 3 %


def test_shapes_occlude_each_other(pictures):
    hidden = 0
    for _, masks, class_ids in pictures:
        for mask, class_id in zip(masks, class_ids, strict=True):
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            touches = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
            # A whole circle fills 79 % of its box.
            hidden += class_id == CIRCLE and not touches and box.mean() < 0.75
    assert hidden >= 10


def test_shapes_stand_out_from_what_is_around_them(pictures):
    for image, masks, _ in pictures:
        for mask in masks:
            rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
            around = np.zeros_like(mask)
            around[max(rows[0] - 4, 0) : rows[-1] + 5, max(columns[0] - 4, 0) : columns[-1] + 5] = True
            around &= ~np.any(masks, axis=0)
            if around.sum() > 30:
                contrast = np.linalg.norm(image[mask].mean(axis=0) - image[around].mean(axis=0))
                assert contrast > 75


def test_backgrounds_stay_near_one_color():
    for seed in range(20):
        pixels = clutter(np.random.default_rng(seed), (97, 130))
        assert pixels.shape == (97, 130, 3)
        assert pixels.dtype == np.float32
        assert pixels.min() >= 0
        assert pixels.max() <= 255
        assert np.ptp(pixels, axis=(0, 1)).max() <= 2 * (SPREAD + 12) + 1
        assert pixels.std(axis=(0, 1)).max() > 2


def test_a_picture_depends_on_seed_and_index_only(pictures):
    again = draw_shapes(7, 5)
    assert np.array_equal(again[0], pictures[5][0])
    assert np.array_equal(again[1], pictures[5][1])
    assert again[2] == pictures[5][2]
    assert not np.array_equal(draw_shapes(8, 5, (64, 64))[0], draw_shapes(7, 5, (64, 64))[0])
    assert not np.array_equal(draw_shapes(7, 6, (64, 64))[0], draw_shapes(7, 5, (64, 64))[0])


@pytest.mark.parametrize("size", [(128, 128), (32, 33), (301, 97)])
def test_a_size_can_be_asked_for(size):
    for index in range(10):
        image, masks, _ = draw_shapes(0, index, size)
        assert image.shape == (*size, 3)
        assert all(mask.shape == size and mask.sum() >= 60 for mask in masks)


def test_a_hopeless_place_is_given_up(monkeypatch):
    monkeypatch.setattr(shape_scene, "_LEAST_PIXELS", 10**6)
    assert draw_shapes(0, 0)[1:] == ([], [])


def test_the_visible_share_is_that_of_the_whole_shape(monkeypatch):
    monkeypatch.setattr(shape_scene, "_LEAST_VISIBLE", 1.0)
    for index in range(60):
        _, masks, class_ids = draw_shapes(3, index)
        for mask, class_id in zip(masks, class_ids, strict=True):
            y, x = np.nonzero(mask)
            if class_id == CIRCLE:
                assert abs(np.ptp(y) - np.ptp(x)) <= 1
                assert len(y) == pytest.approx(np.pi / 4 * (np.ptp(y) + 1) * (np.ptp(x) + 1), rel=0.12)


def test_too_small_pictures_are_refused():
    with pytest.raises(DatasetError, match=r"size is \(40, 31\): expected sides of at least 32"):
        draw_shapes(0, 0, (40, 31))


def test_the_set_in_memory_gives_the_pictures(pictures):
    dataset = shapes_dataset(4, 7)
    assert (dataset.name, dataset.class_names, len(dataset)) == ("shapes", CLASS_NAMES, 4)
    assert dataset.category_ids == {1: 1, 2: 2, 3: 3}
    for record, (image, masks, class_ids) in zip(dataset.records, pictures, strict=False):
        assert np.array_equal(record.load_image(), image)
        instances = record.load_instances()
        assert [instance.class_id for instance in instances] == class_ids
        assert all(np.array_equal(decode(i.mask), mask) for i, mask in zip(instances, masks, strict=True))
    assert [record.image_id for record in dataset.records] == [0, 1, 2, 3]
    assert shapes_dataset(1, 0, size=(40, 50)).records[0].load_image().shape == (40, 50, 3)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (3, -1)])
def test_senseless_sets_are_refused(count, seed, tmp_path):
    with pytest.raises(DatasetError, match=f"count is {count} and seed {seed}"):
        shapes_dataset(count, seed)
    with pytest.raises(DatasetError, match=f"count is {count} and seed {seed}"):
        write_shapes(tmp_path / "a", count, seed)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("shapes") / "train", 30, 7)


def test_pycocotools_reads_the_files(written, pictures):
    coco = COCO(written)
    assert [(category["id"], category["name"]) for category in coco.loadCats([1, 2, 3])] == [
        (1, "square"),
        (2, "circle"),
        (3, "triangle"),
    ]
    assert len(coco.getImgIds()) == 30
    assert min(coco.getAnnIds()) == 1
    for index, row in coco.imgs.items():
        image, masks, class_ids = pictures[index]
        assert np.array_equal(np.asarray(Image.open(written.parent / "images" / row["file_name"])), image)
        assert (row["height"], row["width"]) == image.shape[:2]
        objects = coco.loadAnns(coco.getAnnIds(imgIds=[index]))
        assert [entry["category_id"] for entry in objects] == class_ids
        for entry, mask in zip(objects, masks, strict=True):
            assert np.array_equal(coco.annToMask(entry), mask)
            y, x = np.nonzero(mask)
            assert entry["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert entry["area"] == mask.sum()
            assert entry["iscrowd"] == 0


def test_the_coco_reader_gives_the_set_in_memory(written):
    read, drawn = open_dataset(written), shapes_dataset(30, 7)
    assert (read.class_names, read.category_ids) == (drawn.class_names, drawn.category_ids)
    for ours, theirs in zip(read.records, drawn.records, strict=True):
        assert ours.image_id == theirs.image_id
        assert np.array_equal(ours.load_image(), theirs.load_image())
        pairs = zip(ours.load_instances(), theirs.load_instances(), strict=True)
        assert all((a.class_id, a.mask, a.crowd) == (b.class_id, b.mask, b.crowd) for a, b in pairs)


def test_only_older_shapes_are_replaced(tmp_path):
    folder = tmp_path / "shapes"
    path = write_shapes(folder, 2, 0, size=(64, 64))
    assert path == folder / "annotations.json"
    with pytest.raises(OutputError, match="already exists"):
        write_shapes(folder, 1, 0)
    assert len(json.loads(path.read_text())["images"]) == 2
    write_shapes(folder, 1, 0, overwrite=True, size=(64, 64))
    assert len(list((folder / "images").iterdir())) == len(json.loads(path.read_text())["images"]) == 1
    (folder / "shapes.txt").unlink()
    with pytest.raises(OutputError, match="never replaced"):
        write_shapes(folder, 1, 0, overwrite=True)


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("maskrcnn.data.synthetic.shapes.json.dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "shapes", 2, 0, size=(64, 64))
    assert list(tmp_path.iterdir()) == []
