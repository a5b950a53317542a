"""Large images through a real network: as one tile, from every source, and what the results can do."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.mask import iou

from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.data.synthetic.clutter import clutter
from maskrcnn.data.synthetic.shapes import draw_shapes
from maskrcnn.evaluation.coco_ap import coco_average_precision
from runtime import EngineOptions, Predictor
from runtime.errors import ClosedError, ImageError, InputError
from runtime.masks.regions import move_edges
from runtime.masks.rle import decode, edges, encode_crop, encode_edges

FIELDS = ("boxes", "scores", "class_ids", "mask_probabilities")


@pytest.fixture(scope="module")
def predictor():
    with Predictor(
        Path(__file__).parents[3] / "maskrcnn" / "demo.onnx", "cpu", engine=EngineOptions(threads=1)
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def scene():
    """An image of 2 x 2 tiles."""
    return draw_shapes(3, 12, size=(200, 210))[0]


@pytest.fixture(scope="module")
def found(predictor, scene):
    detections = predictor.predict_tiled(scene, 128, 0.25)
    assert len(detections) > 4
    return detections


def assert_equal(found, expected):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.rles == expected.rles
    assert (found.image_size, found.paste_mode, found.device) == (
        expected.image_size,
        expected.paste_mode,
        expected.device,
    )


@pytest.mark.parametrize("tile", [210, 1024])
def test_an_image_of_one_tile_is_predicted_as_by_a_call(predictor, scene, tile):
    found = predictor.predict_tiled(scene, tile)
    assert_equal(found, predictor(scene))
    assert found.edges is None
    assert len(found)


def test_every_source_gives_the_same(predictor, scene, found, tmp_path):
    Image.fromarray(scene).save(tmp_path / "scene.png")
    content = (tmp_path / "scene.png").read_bytes()
    for source in (tmp_path / "scene.png", content, BytesIO(content), Image.fromarray(scene)):
        assert_equal(predictor.predict_tiled(source, 128, 0.25), found)


def test_orientation_and_depth_are_those_of_the_whole(predictor, scene, found, tmp_path):
    """A value range is applied to the image and not to each tile, and tiles are cut from the upright image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(scene)).save(tmp_path / "turned.png", exif=exif)
    assert_equal(predictor.predict_tiled(tmp_path / "turned.png", 128, 0.25), found)
    predictor = Predictor(predictor.path, "cpu", value_range=(0, 255 * 16))
    deep = scene.astype(np.uint16) * 16
    deep[:150, :200] //= 4  # a dark corner stays dark
    dark = scene.copy()
    dark[:150, :200] = np.rint(deep[:150, :200] / 16)
    assert_equal(predictor.predict_tiled(deep, 128, 0.25), predictor.predict_tiled(dark, 128, 0.25))


SIDE, SCENES = 256, 4


@pytest.fixture(scope="module")
def mosaic():
    """The shapes of 4 x 4 scenes on one background; the corners of many backgrounds would look like squares."""
    size = (SIDE * SCENES, SIDE * SCENES)
    image = clutter(np.random.default_rng(5), size).clip(0, 255).astype(np.uint8)
    objects = []
    for number in range(SCENES**2):
        y, x = (SIDE * place for place in divmod(number, SCENES))
        drawn, masks, class_ids = draw_shapes(5, number, size=(SIDE, SIDE))
        for mask, class_id in zip(masks, class_ids, strict=True):
            image[y : y + SIDE, x : x + SIDE][mask] = drawn[mask]
            objects.append(Instance(class_id, encode_crop(mask, (y, x), size)))
    return image, objects


def scores(rows, objects, names):
    """Mask AP, the objects that are found, and the number of duplicates: pairs of which one covers half of another."""
    results = [
        {"image_id": 0, "category_id": class_id, "bbox": [0, 0, 1, 1], "score": score, "segmentation": mask}
        for class_id, score, mask in rows
    ]
    truth = Dataset("mosaic", names, (Record(0, None, tuple(objects)),), {i: i for i in range(1, len(names))})
    precision = coco_average_precision(truth, results, 1000)["segm"]["AP"]
    found, doubled = set(), 0
    for class_id in range(1, len(names)):
        wanted = [place for place, each in enumerate(objects) if each.class_id == class_id]
        masks = [mask for each, _, mask in rows if each == class_id]
        best = iou(masks, [objects[place].mask for place in wanted], [0] * len(wanted)).max(axis=0)
        found |= {place for place, value in zip(wanted, best, strict=True) if value >= 0.5}
        covered = iou(masks, masks, [1] * len(masks))  # the share of each that another covers
        doubled += np.count_nonzero(np.triu(np.maximum(covered, covered.T) > 0.5, 1))
    return precision, found, doubled


def test_a_dense_image_in_tiles_has_what_its_parts_have(predictor, mosaic):
    """Tiles do not fit the scenes, so they cut their shapes apart."""
    image, objects = mosaic
    alone = []
    for y in range(0, len(image), SIDE):
        for x in range(0, len(image), SIDE):
            part = predictor(image[y : y + SIDE, x : x + SIDE])
            moved = [move_edges(edges(rle), SIDE, (y, x), len(image)) for rle in part.rles]
            masks = encode_edges(moved, image.shape[:2])
            alone += zip(part.class_ids.tolist(), part.scores.tolist(), masks, strict=True)
    whole = predictor.predict_tiled(image, SIDE)
    tiled = list(zip(whole.class_ids.tolist(), whole.scores.tolist(), whole.rles, strict=True))
    (precision, found, doubled), (expected, there, before) = (
        scores(rows, objects, predictor.class_names) for rows in (tiled, alone)
    )
    assert len(there) > 50
    assert len(found & there) >= 0.99 * len(there)
    assert precision == pytest.approx(expected, abs=0.01)
    assert doubled <= before + 1


def test_thresholds_and_limits(predictor, scene, found):
    high = predictor.predict_tiled(scene, 128, 0.25, score_threshold=0.9)
    assert len(high) < len(found)
    assert high.scores.min() >= 0.9
    predictor = Predictor(predictor.path, "cpu", max_detections=1)
    assert 1 < len(predictor.predict_tiled(scene, 128, 0.25)) <= 4  # one in each tile


def test_what_detections_do(found, scene, tmp_path):
    """Masks in all their forms are the same, also of a part of the detections."""
    masks = found.masks
    assert masks.shape == (len(found), *scene.shape[:2])
    for row, one in enumerate(found):
        np.testing.assert_array_equal(decode(found.rles[row]), masks[row])
        np.testing.assert_array_equal(one.masks[0], masks[row])
        crop, (y, x) = found.mask_crops[row]
        np.testing.assert_array_equal(crop, masks[row, y : y + crop.shape[0], x : x + crop.shape[1]])
        assert crop.sum() == found.areas[row] == masks[row].sum()
    np.testing.assert_array_equal(found.filter(classes=1).masks, masks[found.class_ids == 1])
    np.testing.assert_array_equal(found[[2, 0]].masks, masks[[2, 0]])
    drawn, splash = np.asarray(found.draw()), np.asarray(found.splash())
    assert (drawn[masks.any(axis=0)] != scene[masks.any(axis=0)]).any()
    np.testing.assert_array_equal(splash[masks.any(axis=0)], scene[masks.any(axis=0)])
    assert np.ptp(splash[~masks.any(axis=0)], axis=-1).max() == 0
    assert len(json.loads(found.to_json())["detections"]) == len(found.to_coco(1)) == len(found)
    assert "image/png" in found._repr_mimebundle_()
    found.save(tmp_path / "drawn.png")
    assert (np.asarray(Image.open(tmp_path / "drawn.png")) == drawn).all()


def test_the_image_is_found_again_only_if_it_is_the_same(predictor, scene, tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(scene).save(path)
    found = predictor.predict_tiled(path, 128, 0.25)
    assert found.image_path == str(path)
    np.testing.assert_array_equal(found.read_image(), scene)
    changed = scene.copy()
    changed[-1, -1] ^= 1
    Image.fromarray(changed).save(path)
    with pytest.raises(ImageError, match="has changed"):
        found.read_image()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "tile is 0"),
        ((128, 1.0), "overlap is 1.0"),
        ((128, 0.2, 0), "batch_size is 0"),
    ],
)
def test_bad_arguments_before_the_image_is_read(predictor, arguments, message):
    with pytest.raises(InputError, match=message):
        predictor.predict_tiled("missing.png", *arguments)


def test_errors(predictor, scene):
    with pytest.raises(ImageError, match="does not exist"):
        predictor.predict_tiled("missing.png")
    with pytest.raises(InputError, match="score_threshold"):
        predictor.predict_tiled(scene, score_threshold=2.0)
    closed = Predictor(predictor.path, "cpu", max_pixels=1000)
    with pytest.raises(ImageError, match="at most 1000 are allowed"):
        closed.predict_tiled(scene, 128)
    closed.close()
    with pytest.raises(ClosedError):
        closed.predict_tiled(scene, 128)
