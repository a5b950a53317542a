"""Picture in, detections out, on both engines: sources, batches, thresholds, sizes, refusals, placement."""

import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.synthetic.shapes import draw_shapes
from runtime import Detections, Predictor
from runtime.errors import ImageError, InputError
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.steps import to_detections

BOXES, SCORES, MASKS = 0.01, 1e-5, 1e-4  # pixels, scores, probabilities: what is promised of one model


def assert_same(found, expected, boxes=BOXES, scores=SCORES, masks=MASKS):
    """The same detections in the same order, within the given differences."""
    assert len(found) == len(expected)
    assert found.image_size == expected.image_size
    assert found.class_names == expected.class_names
    assert found.paste_mode == expected.paste_mode
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=boxes)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=scores)
    np.testing.assert_allclose(found.mask_probabilities, expected.mask_probabilities, rtol=0, atol=masks)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def scene(height, width):
    return draw_shapes(7, 15, size=(height, width))[0]


@pytest.fixture(scope="module")
def found(predictor, picture):
    """The detections in the demo picture; the tests below mean nothing without some."""
    detections = predictor(picture)
    assert len(detections) >= 6
    assert len(set(detections.class_ids.tolist())) > 1
    return detections


@pytest.fixture(scope="module")
def pictures(picture):
    """Pictures of many sizes; two of them are equal, two have one size."""
    return [
        picture,
        scene(67, 501),
        picture[:200, :150],
        scene(64, 64),
        picture,
        scene(360, 480),
        scene(501, 67),
    ]


@pytest.fixture(scope="module")
def one_by_one(predictor, pictures):
    results = [predictor(each) for each in pictures]
    assert all(len(result) > 0 for result in results)
    return results


def test_detections_are_those_of_the_picture(predictor, found, picture):
    assert isinstance(found, Detections)
    assert found.image_size == (360, 480)
    assert found.class_names == predictor.class_names == ("BG", "square", "circle", "triangle")
    assert found.paste_mode == predictor.metadata.mask_paste
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() >= predictor.score_threshold
    assert found.class_ids.min() >= 1
    np.testing.assert_array_equal(found.draw(), found.draw(picture))


def test_results_say_where_they_were_made(predictor, picture):
    for found in (predictor(picture), *predictor.predict_batch([picture]), *predictor.predict_stream([picture])):
        assert found.device == predictor.device == "cpu"


def test_equal_for_path_bytes_pil_and_array(predictor, found, picture, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    encoded = path.read_bytes()
    for source in (path, str(path), encoded, Image.open(BytesIO(encoded)), Image.fromarray(picture), picture):
        assert_same(predictor(source), found, 0, 0, 0)


def test_gray_and_transparent_pictures_are_taken(predictor, found, picture):
    opaque = np.dstack([picture, np.full(picture.shape[:2], 7, np.uint8)])
    assert_same(predictor(opaque), found, 0, 0, 0)
    gray = np.asarray(Image.fromarray(picture).convert("L"))
    assert_same(predictor(gray), predictor(np.dstack([gray] * 3)), 0, 0, 0)


def test_orientation_of_a_photo_is_applied(predictor, picture):
    turned = Image.fromarray(picture)
    exif = turned.getexif()
    exif[0x0112] = 6
    stream = BytesIO()
    turned.save(stream, "PNG", exif=exif)
    result = predictor(stream.getvalue())
    assert result.image_size == (480, 360)
    assert_same(result, predictor(np.rot90(picture, -1)), 0, 0, 0)


def test_both_engines_agree(onnx_artifact, savedmodel_artifact, picture):
    first, second = Predictor(onnx_artifact, "cpu"), Predictor(savedmodel_artifact, "cpu")
    for each in (picture, picture[:200, :150], picture[100:, ::-1]):
        assert len(first(each)) > 0
        assert_same(first(each), second(each))


def test_boxes_are_mapped_back_from_the_letterbox(predictor, picture, found):
    # 360 x 480 becomes 192 x 256, with 32 black rows above and below; its first and last pixels stay first and last.
    small = plan_letterbox((360, 480), predictor.metadata.resize).apply(picture)
    assert small.shape == (256, 256, 3)
    outputs = predictor.run(small[None], np.array([[32, 0, 224, 256]], np.float32))
    count = outputs["num_detections"][0]
    x1, y1, x2, y2 = outputs["boxes"][0, :count].astype(np.float64).T
    expected = np.stack(
        [x1 / 255 * 479, (y1 - 32) / 191 * 359, (x2 - 1) / 255 * 479 + 1, (y2 - 33) / 191 * 359 + 1], axis=1
    )
    rounded = np.rint(expected)
    kept = ((rounded[:, 2:] - rounded[:, :2]) > 0).all(axis=1)
    assert kept.sum() == len(found)
    np.testing.assert_allclose(found.boxes, expected[kept], rtol=0, atol=1e-3)


def test_boxes_lie_in_the_picture(pictures, one_by_one):
    for each, result in zip(pictures, one_by_one, strict=True):
        height, width = each.shape[:2]
        assert result.image_size == (height, width)
        assert (result.boxes[:, :2] >= -1e-3).all()
        assert (result.boxes[:, 2:] <= np.array([width, height]) + 1e-3).all()
        assert (result.pixel_boxes[:, 2:] > result.pixel_boxes[:, :2]).all()
        # More than the letterbox shows: at least one box reaches into the last quarter of each side.
        assert result.boxes[:, 2].max() > 0.75 * width
        assert result.boxes[:, 3].max() > 0.75 * height


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 100])
def test_batch_equals_one_at_a_time(predictor, pictures, one_by_one, batch_size):
    together = predictor.predict_batch(pictures, batch_size)
    assert len(together) == len(pictures)
    for result, expected in zip(together, one_by_one, strict=True):
        assert_same(result, expected)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_batch_of_several_input_sizes_keeps_the_order(doctored, pictures, batch_size):
    path = doctored(resize={"mode": "pad64", "min_dim": 64, "max_dim": None, "min_scale": None})
    predictor = Predictor(path, "cpu")
    expected = [predictor(each) for each in pictures]
    assert all(len(each) > 0 for each in expected)
    sizes = {plan_letterbox(each.shape[:2], predictor.metadata.resize).input_size for each in pictures}
    assert len(sizes) == 5
    for result, alone in zip(predictor.predict_batch(pictures, batch_size), expected, strict=True):
        assert_same(result, alone)


def test_an_input_that_follows_the_image_finds_what_a_square_one_finds(doctored, predictor, picture):
    fitted = Predictor(doctored(resize={"mode": "fit64", "min_dim": 256, "max_dim": 256, "min_scale": 0}), "cpu")
    assert fitted.prepare(picture)[1].shape == (192, 256, 3)
    square, found = (each(picture) for each in (predictor, fitted))
    order, expected = (np.lexsort((each.boxes[:, 0], each.class_ids)) for each in (found, square))
    np.testing.assert_array_equal(found.class_ids[order], square.class_ids[expected])
    np.testing.assert_allclose(found.boxes[order], square.boxes[expected], atol=6)  # pixels; less padding is seen


def test_batch_size_is_the_most_that_run_together(predictor, pictures, monkeypatch):
    seen, run = [], predictor.run
    monkeypatch.setattr(predictor, "run", lambda images, windows: (seen.append(len(images)), run(images, windows))[1])
    predictor.predict_batch(pictures, 3)
    assert seen == [3, 3, 1]


def test_batch_takes_every_kind_of_source(predictor, found, picture, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    for result in predictor.predict_batch((path, path.read_bytes(), picture)):
        assert_same(result, found)


def test_batch_of_nothing(predictor):
    assert predictor.predict_batch([]) == []


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "4", None])
def test_bad_batch_size(predictor, picture, batch_size):
    with pytest.raises(InputError, match="batch_size is"):
        predictor.predict_batch([picture], batch_size)


def test_bad_picture_in_a_batch_is_named(predictor, picture, tmp_path):
    with pytest.raises(ImageError, match=r"absent\.png"):
        predictor.predict_batch([picture, tmp_path / "absent.png"])


def test_same_answer_from_several_threads(predictor, pictures, one_by_one):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(predictor, pictures * 2))
    for result, expected in zip(results, one_by_one * 2, strict=True):
        assert_same(result, expected)


def test_input_picture_is_not_changed(predictor, picture):
    mine = picture.copy()
    predictor(mine)
    np.testing.assert_array_equal(mine, picture)


def test_higher_score_threshold_gives_a_part(artifact, found, picture):
    threshold = float(np.median(found.scores))
    fewer = Predictor(artifact, "cpu", score_threshold=threshold)
    assert fewer.score_threshold == threshold
    part = found.filter(min_score=threshold)
    assert 0 < len(part) < len(found)
    assert_same(fewer(picture), part)


def ious(boxes):
    """IoU of each pair, boxes [N, 4]."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    return inter / (areas[:, None] + areas[None] - inter)


def largest_overlap(artifact, picture, threshold):
    predictor = Predictor(artifact, "cpu", score_threshold=0.0, nms_threshold=threshold)
    assert predictor.nms_threshold == threshold
    letterbox = plan_letterbox(picture.shape[:2], predictor.metadata.resize)
    outputs = predictor.run(letterbox.apply(picture)[None], np.array([letterbox.window], np.float32))
    count = outputs["num_detections"][0]
    assert count > 1
    classes = outputs["class_ids"][0, :count]
    same = (classes[:, None] == classes) & ~np.eye(count, dtype=bool)
    # The graph compares boxes whose last pixel is part of them: x2, y2 are one less there.
    boxes = outputs["boxes"][0, :count].astype(np.float64) - [0, 0, 1, 1]
    return ious(boxes)[same].max()


def test_nms_threshold_is_the_largest_overlap_within_a_class(artifact, picture):
    thresholds = np.array([0.05, 0.5, 0.97])
    largest = np.array([largest_overlap(artifact, picture, float(threshold)) for threshold in thresholds])
    assert (largest <= thresholds + 1e-5).all()
    assert (largest[1:] > thresholds[:-1]).all()  # a higher threshold keeps what a lower one drops


def test_thresholds_come_from_the_artifact_unless_given(doctored, picture, found):
    middle = float(np.median(found.scores))
    path = doctored(score_threshold=middle, nms_threshold=0.25)
    defaults = Predictor(path, "cpu")
    assert (defaults.score_threshold, defaults.nms_threshold) == (middle, 0.25)
    result = defaults(picture)
    assert 0 < len(result) < len(found)
    assert result.scores.min() >= middle
    given = Predictor(path, "cpu", score_threshold=0.0, nms_threshold=0)
    assert (given.score_threshold, given.nms_threshold) == (0.0, 0.0)


def test_thresholds_of_one_call(predictor, picture, found):
    middle = float(np.median(found.scores))
    before = predictor.score_threshold, predictor.nms_threshold
    for thresholds in ({"score_threshold": middle}, {"score_threshold": 0.05, "nms_threshold": 0.9}, {}):
        for name, value in thresholds.items():
            setattr(predictor, name, value)
        expected = predictor(picture)
        predictor.score_threshold, predictor.nms_threshold = before
        calls = [
            predictor(picture, **thresholds),
            *predictor.predict_batch([picture, picture], **thresholds),
            *predictor.predict_stream([picture], **thresholds),
        ]
        for each in calls:
            assert_same(each, expected)
        assert (predictor.score_threshold, predictor.nms_threshold) == before
    assert len(predictor(picture, score_threshold=middle)) < len(found) <= len(predictor(picture, score_threshold=0))
    assert_same(predictor(picture, score_threshold=None, nms_threshold=None), found, 0, 0, 0)


def test_thresholds_of_calls_at_the_same_time(predictor, picture, found):
    values = sorted({0.0, *map(float, found.scores)})
    alone = {value: predictor(picture, score_threshold=value) for value in values}
    assert len({len(each) for each in alone.values()}) > 2
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda value: (value, predictor(picture, score_threshold=value)), values * 3))
    for value, result in results:
        assert_same(result, alone[value])


@pytest.mark.parametrize("name", ["score_threshold", "nms_threshold"])
def test_thresholds_of_a_call_are_checked_as_those_of_the_predictor(predictor, picture, name):
    letterbox, prepared = predictor.prepare(picture)
    inputs = prepared[None], np.array([letterbox.window], np.float32)
    for value in (1.5, -0.1, "0.5", True, float("nan")):
        with pytest.raises(InputError) as assigned:
            setattr(predictor, name, value)
        for call in (
            lambda given: predictor(None, **given),  # before the image is looked at
            lambda given: predictor.predict_batch([picture], **given),
            lambda given: predictor.predict_stream([picture], **given),  # before the first result
            lambda given: predictor.run(*inputs, **given),
        ):
            with pytest.raises(InputError) as refused:
                call({name: value})
            assert str(refused.value) == str(assigned.value)


def test_a_predictor_and_its_metadata_are_shown_in_one_line(predictor, artifact, onnx_artifact):
    kind, metadata = predictor.metadata.format, predictor.metadata
    thresholds = f"score_threshold={metadata.score_threshold}, nms_threshold={metadata.nms_threshold}"
    assert repr(predictor) == f"Predictor({artifact.name!r}, {kind} on cpu, 3 classes, {thresholds})"
    assert repr(metadata) == f"Metadata({metadata.name!r}, {kind}, fp32, 3 classes, proven)"
    with Predictor(onnx_artifact.read_bytes(), "cpu") as held:
        held.score_threshold = 0.25
        assert repr(held).startswith("Predictor(bytes, onnx on cpu, 3 classes, score_threshold=0.25, ")
    assert repr(held).endswith(", closed)")


def test_no_detections(artifact, picture, tmp_path):
    empty = Predictor(artifact, "cpu", score_threshold=1.0)(picture)
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert empty.masks.shape == (0, 360, 480)
    assert empty.rles == []
    assert empty.to_coco(1) == []
    path = tmp_path / "empty.json"
    empty.to_json(path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"image_size": [360, 480], "device": "cpu", "detections": []}
    np.testing.assert_array_equal(np.asarray(empty.draw(picture)), picture)


def test_no_detections_beside_some(artifact, predictor, pictures, one_by_one):
    best = [float(each.scores.max()) for each in one_by_one]
    between = (min(best) + max(best)) / 2
    predictor = Predictor(artifact, "cpu", score_threshold=between)
    alone = [predictor(each) for each in pictures]
    assert {len(each) > 0 for each in alone} == {False, True}
    for result, expected in zip(predictor.predict_batch(pictures), alone, strict=True):
        assert_same(result, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (37, 501), (3000, 200), (2, 3)])
def test_unusual_sizes(predictor, size):
    pixels = noise(*size)
    result = predictor(pixels)
    assert result.image_size == size
    assert result.masks.shape == (len(result), *size)
    assert len(json.loads(result.to_json())["detections"]) == len(result)
    assert result.draw(pixels).size == size[::-1]
    assert (result.boxes[:, 2:] <= np.array(size[::-1]) + 1e-3).all()


def test_artifact_that_does_not_resize(doctored, picture):
    path = doctored(resize={"mode": "none", "min_dim": None, "max_dim": None, "min_scale": None})
    predictor = Predictor(path, "cpu")
    pixels = np.ascontiguousarray(picture[:128, :192])
    outputs = predictor.run(pixels[None], np.array([[0, 0, 128, 192]], np.float32))
    result = predictor(pixels)
    assert 0 < len(result) <= outputs["num_detections"][0]
    assert set(map(tuple, result.boxes.tolist())) <= set(map(tuple, outputs["boxes"][0].tolist()))
    with pytest.raises(ImageError, match=r"360 x 480 pixels.*multiples of 64"):
        predictor(picture)


def test_picture_that_would_be_enlarged_too_much(doctored):
    path = doctored(resize={"mode": "pad64", "min_dim": 1024, "max_dim": None, "min_scale": None})
    with pytest.raises(ImageError, match="1 x 500 pixels would be enlarged"):
        Predictor(path, "cpu")(np.zeros((1, 500, 3), np.uint8))


IMAGES = np.zeros((2, 64, 128, 3), np.uint8)
WINDOWS = np.array([[0, 0, 64, 128]] * 2, np.float32)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES[0],
        IMAGES[None],
        IMAGES.astype(np.float32),
        IMAGES.astype(np.int32),
        IMAGES[:0],
        IMAGES[:, :63],
        IMAGES[:, :, :100],
        IMAGES[:, :0],
        IMAGES[:, :, :0],
        IMAGES[..., :1],
        np.moveaxis(IMAGES, -1, 1),
        IMAGES.tolist(),
        None,
    ],
)
def test_bad_images_never_reach_the_engine(predictor, images):
    for method in (predictor.run, predictor.borders):
        with pytest.raises(InputError, match="images is") as refused:
            method(images, WINDOWS)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "windows",
    [
        WINDOWS[0],
        WINDOWS[:1],
        WINDOWS[:0],
        WINDOWS[:, :3],
        WINDOWS[None],
        WINDOWS.astype(complex),
        WINDOWS.astype(str),
        np.full((2, 4), np.nan, np.float32),
        np.full((2, 4), np.inf, np.float32),
        np.full((2, 4), 1e300),
        WINDOWS.tolist(),
        None,
    ],
)
def test_bad_windows_never_reach_the_engine(predictor, windows):
    for method in (predictor.run, predictor.borders):
        with pytest.raises(InputError, match="windows is") as refused:
            method(IMAGES, windows)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_windows_of_other_number_types_are_converted(predictor, dtype):
    expected = predictor.run(IMAGES, WINDOWS)
    for name, array in predictor.run(IMAGES, WINDOWS.astype(dtype)).items():
        np.testing.assert_array_equal(array, expected[name])


def test_images_that_are_not_contiguous(predictor, picture):
    images = np.stack([picture[:320:2, :448:2]] * 2)[:, :128, :192]
    reversed_twice = np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1]
    assert not reversed_twice.flags.c_contiguous
    windows = np.array([[0, 0, 128, 192]] * 2, np.float32)
    expected = predictor.run(np.ascontiguousarray(images), windows)
    assert expected["num_detections"].all()
    for name, array in predictor.run(reversed_twice, windows).items():
        np.testing.assert_array_equal(array, expected[name])


def test_rows_behind_the_last_detection_are_zero(artifact, picture, found):
    predictor = Predictor(artifact, "cpu", score_threshold=float(np.median(found.scores)))
    letterbox = plan_letterbox((360, 480), predictor.metadata.resize)
    outputs = predictor.run(letterbox.apply(picture)[None], np.array([letterbox.window], np.float32))
    count = outputs["num_detections"][0]
    assert 0 < count < predictor.metadata.max_detections
    for name in ("boxes", "scores", "class_ids"):
        assert outputs[name][0, :count].any()
        assert not outputs[name][0, count:].any()


def test_to_detections_takes_the_rows_in_use_and_drops_boxes_without_area(predictor):
    letterbox = plan_letterbox((640, 320), ResizePolicy("square", 320, 320, 0))  # halved: columns 80 to 240 of 320
    boxes = [[80, 0, 240, 320], [100, 10, 140, 50], [100, 10, 100.1, 50], [100, 50, 140, 50], [90, 9, 99, 99]]
    outputs = {
        "num_detections": np.int32(4),
        "boxes": np.array(boxes, np.float32),
        "scores": np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32),
        "class_ids": np.array([1, 2, 3, 1, 99], np.int32),  # the last row is not in use
        "masks": np.linspace(0, 1, 5 * 4, dtype=np.float32).reshape(5, 2, 2),
    }
    result = to_detections(outputs, letterbox, predictor.class_names, "aligned")
    np.testing.assert_allclose(result.scores, [0.9, 0.8])
    np.testing.assert_array_equal(result.class_ids, [1, 2])
    np.testing.assert_array_equal(result.mask_probabilities, outputs["masks"][:2])
    np.testing.assert_allclose(result.boxes[0], [0, 0, 320, 640], atol=1e-4)
    assert result.image_size == (640, 320)
    assert (result.class_names, result.paste_mode) == (predictor.class_names, "aligned")


@pytest.mark.parametrize("largest", [np.nextafter(np.float32(1), 2), 1 + 2**-10, 1 + 2**-7])
def test_probabilities_that_an_engine_rounds_up_are_1(largest):
    """ONNX Runtime's sigmoid of 17.844 is 1 + 2**-23; the others are one step of float16 and bfloat16."""
    letterbox = plan_letterbox((640, 640), ResizePolicy("square", 320, 320, 0))
    outputs = {
        "num_detections": np.int32(1),
        "boxes": np.array([[80, 0, 240, 320]], np.float32),
        "scores": np.array([0.9], np.float32),
        "class_ids": np.array([1], np.int32),
        "masks": np.array([[[0.25, largest], [0.5, 1]]], np.float32),
    }
    (found,) = to_detections(outputs, letterbox, ("BG", "a"), "aligned").mask_probabilities
    np.testing.assert_array_equal(found, np.array([[0.25, 1], [0.5, 1]], np.float32))
    outputs["masks"] += np.float32(1.5)
    with pytest.raises(InputError, match=r"outside 0\.\.1"):
        to_detections(outputs, letterbox, ("BG", "a"), "aligned")


def test_explain_on_the_cpu(artifact, picture):
    predictor = Predictor(artifact, "cpu")
    first = predictor.explain()
    predictor(picture)
    second = predictor.explain()
    assert first.counts == second.counts  # whatever ran before
    assert first.milliseconds.keys() == first.counts.keys()
    place = "CPU:0" if artifact.is_dir() else "CPUExecutionProvider"
    assert first.device == "cpu"
    assert all(place in where for where, _ in first.counts)
    assert sum(first.counts.values()) > 100
    operators = {operator for _, operator in first.counts}
    if artifact.is_dir():
        assert any("Conv2D" in operator for operator in operators)
        assert {"CropAndResize", "CombinedNonMaxSuppression"} <= operators
    else:
        assert {"Conv", "RoiAlign", "NonMaxSuppression"} <= operators
    assert place in str(first)


def test_explain_leaves_the_predictor_as_it_is(artifact, picture, found):
    predictor = Predictor(artifact, "cpu")
    predictor.explain()
    assert_same(predictor(picture), found)


@pytest.fixture
def cuda(request, artifact):
    """A predictor on the CUDA device; TensorFlow may see none where ONNX Runtime does."""
    if artifact.is_dir():
        artifact = request.getfixturevalue("cuda_savedmodel_artifact")
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            pytest.skip("gpu: TensorFlow sees no CUDA device")
    return Predictor(artifact, "cuda")


@pytest.mark.gpu
def test_cuda_finds_what_the_cpu_finds(cuda, pictures, one_by_one):
    for each, expected in zip(pictures, one_by_one, strict=True):
        assert_same(cuda(each), expected)
    for result, expected in zip(cuda.predict_batch(pictures), one_by_one, strict=True):
        assert_same(result, expected)


@pytest.mark.gpu
def test_cuda_is_where_the_work_is_done(cuda, artifact):
    assert cuda.device == "cuda:0"
    placement = cuda.explain()
    assert placement.device == "cuda:0"
    if artifact.is_dir():
        assert sum(n for (where, op), n in placement.counts.items() if "GPU:0" in where and "Conv2D" in op) > 10
        for operator in ("CropAndResize", "NonMaxSuppressionV4", "TopKV2"):
            assert {where for where, op in placement.counts if op == operator} == {"GPU:0"}
        assert not {"CombinedNonMaxSuppression", "Conv2D", "GatherV2", "Relu"} & placement.on_cpu.keys()
        assert placement.copies > 0  # of inputs and outputs at least
    else:
        for operator in ("Conv", "RoiAlign", "NonMaxSuppression"):
            places = {where for where, op in placement.counts if op == operator}
            assert places == {"CUDAExecutionProvider"}


@pytest.mark.gpu
def test_auto_takes_cuda(cuda, artifact):
    assert Predictor(artifact).device == "cuda:0"


@pytest.mark.gpu
def test_cuda_device_that_does_not_exist(cuda, artifact):
    from runtime.errors import DeviceError

    with pytest.raises(DeviceError):
        Predictor(artifact, "cuda:63")


@pytest.mark.parametrize("one", ["street.jpg", b"bytes", np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)])
def test_one_picture_is_not_a_batch(predictor, one):
    with pytest.raises(InputError, match="pass a list of images"):
        predictor.predict_batch(one)


def test_an_array_of_pictures_is_a_batch(predictor, picture):
    alone = predictor(picture)
    assert [len(found) for found in predictor.predict_batch(np.stack([picture, picture]))] == [len(alone)] * 2
