"""Half precision and 8 bits: what changes, how much accuracy may drop, and that nothing is written if more does."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_artifacts import reseal
from fake_artifacts import VERDICT
from onnx import numpy_helper
from typer.testing import CliRunner

from export.cli import app
from export.errors import ConversionError
from export.precision import lower as to_lower_precision
from export.precision.gate import detected_dataset, judge_precision, score_masks
from export.precision.lower import LowerPrecision, export_lower_precision
from export.precision.quantize import PARTS, nodes_by_part
from export.reverify import verify_artifact
from export.target import Target
from export.verify.pictures import pictures_of_folder
from export.verify.verdict import PrecisionGate
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.data.records import Dataset, Record
from maskrcnn.data.synthetic.shapes import shapes_dataset, write_shapes
from maskrcnn.errors import DatasetError
from runtime import Predictor, read_metadata
from runtime.detections import Detections
from runtime.errors import ArtifactError, ImageError, MissingPackageError

FACTS = {"name": "demo model"}


def copy_of(artifact):
    """An export that copies an artifact."""

    def export(_model, output, **_options):
        shutil.copy(artifact, output)
        return VERDICT

    return export


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Twelve pictures of shapes with their annotations."""
    return write_shapes(tmp_path_factory.mktemp("int8") / "shapes", 12, 5)


@pytest.fixture(scope="module")
def int8(demo, shapes, tmp_path_factory, onnx_artifact):
    """The demo model in 8 bits, and its verdict; the whole path from the model is that of `half`."""
    path = tmp_path_factory.mktemp("int8") / "demo.onnx"
    lower = LowerPrecision("int8", shapes.parent / "images", open_dataset(shapes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(to_lower_precision, "export_onnx", copy_of(onnx_artifact))
        return path, export_lower_precision(demo, path, lower, checkpoint=FACTS)


@pytest.fixture(scope="module")
def half(demo, shapes, tmp_path_factory):
    """The demo model in half precision for CUDA, and its verdict."""
    path = tmp_path_factory.mktemp("half") / "demo.onnx"
    lower = LowerPrecision("fp16", shapes.parent / "images", open_dataset(shapes))
    return path, export_lower_precision(demo, path, lower, checkpoint=FACTS, target=Target("cuda"))


@pytest.fixture
def whole_is_there(monkeypatch, onnx_artifact):
    """The float32 artifact is copied instead of made and verified, which other tests do."""
    monkeypatch.setattr(to_lower_precision, "export_onnx", copy_of(onnx_artifact))


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_demo_in_8_bits_finds_the_same(int8, picture, onnx_artifact):
    path, verdict = int8
    found, expected = Predictor(path, "cpu")(picture), Predictor(onnx_artifact, "cpu")(picture)
    assert sorted(found.names) == sorted(expected.names)
    for row, mask in enumerate(found.masks):
        shared = [(mask & other).sum() / (mask | other).sum() for other in expected.masks]
        assert max(shared) > 0.85, row
    gate = verdict.precision
    assert gate["passed"]
    assert gate["drop"] <= 0.01
    assert gate["against"] == "annotations"
    assert gate["measure"] == "mask AP"
    assert set(gate["classes"]) == {"square", "circle", "triangle"}
    # The folder for calibration holds the annotated images.
    assert (gate["pictures"], gate["calibrated"], gate["left_in_float"]) == (6, 6, [])


def test_weights_are_bytes_with_a_scale_for_each_channel(int8, onnx_artifact):
    path, _ = int8
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    sources = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(convolutions) > 30
    for node in convolutions:
        stored = sources[node.input[1]]
        assert stored.op_type == "DequantizeLinear"
        weights, scales = constants[stored.input[0]], constants[stored.input[1]]
        assert weights.dtype == np.int8
        assert scales.size == len(weights)
        assert sources[node.input[0]].op_type == "DequantizeLinear"
    assert path.stat().st_size < 0.31 * onnx_artifact.stat().st_size  # of larger models less: names weigh here
    assert {node.domain for node in graph.node} == {""}


def test_no_relu_stands_between_products_of_8_bits(int8):
    """It would be a step to float32 and back, with one more rounding."""
    graph = onnx.load(int8[0]).graph
    made_by = {name: node for node in graph.node for name in node.output}
    assert sum(node.op_type == "Conv" for node in graph.node) > 40
    for node in graph.node:
        if node.op_type == "Relu" and made_by[node.input[0]].op_type == "DequantizeLinear":
            readers = [each.op_type for each in graph.node if node.output[0] in each.input]
            assert "QuantizeLinear" not in readers, node.name


def test_openvino_computes_the_same_file_in_8_bits(int8, shapes):
    library = pytest.importorskip(
        "runtime.engines.openvino.library", reason="openvino is not installed", exc_type=ImportError
    )
    from runtime.engines.openvino.read import read_model

    path, dataset = int8[0], open_dataset(shapes)
    compiled = library.core().compile_model(read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kinds = [(str(node["layerType"].astype(str)), str(node["runtimePrecision"].astype(str))) for node in nodes]
    assert {precision for kind, precision in kinds if kind == "Convolution"} == {"u8"}
    assert kinds.count(("FakeQuantize", "f32")) <= 6  # of crops, which are float32, and of what joins two branches
    found, expected = (
        score_masks(Predictor(path, device, score_threshold=0.05), dataset) for device in ("openvino", "cpu")
    )
    assert expected.numbers["AP"] > 0.7
    assert abs(found.numbers["AP"] - expected.numbers["AP"]) < 0.01


def test_the_artifact_says_what_it_is(int8, demo):
    path, verdict = int8
    metadata = read_metadata(path)
    assert metadata.precision == "int8"
    assert metadata.verdict["precision"] == json.loads(json.dumps(verdict.precision))
    beside = json.loads(path.with_name(path.name + ".verdict.json").read_text())
    assert beside["precision"]["found"] == verdict.precision["found"]
    shown = call("show", path).output
    assert "passed (float32 graph)" in shown
    assert "int8: mask AP" in shown
    with pytest.raises(ArtifactError, match="maskrcnn evaluate"):
        verify_artifact(path, demo)


def test_the_demo_in_half_precision(half, shapes, onnx_artifact, picture):
    path, verdict = half
    metadata = read_metadata(path)
    assert (metadata.precision, metadata.target) == ("fp16", "cuda")
    anchors = 4 * 4 * 16368  # bytes; constant for this target
    assert path.stat().st_size <= 0.52 * onnx_artifact.stat().st_size + anchors
    gate = verdict.precision
    assert (gate["precision"], gate["against"], gate["passed"]) == ("fp16", "annotations", True)
    assert abs(gate["drop"]) <= 0.005
    assert gate["left_in_float"] == []
    found, expected = Predictor(path, "cpu")(picture), Predictor(onnx_artifact, "cpu")(picture)
    assert found.names == expected.names
    assert np.allclose(found.boxes, expected.boxes, atol=0.2)
    assert np.allclose(found.scores, expected.scores, atol=0.002)
    assert not np.array_equal(found.boxes, expected.boxes)


def test_borders_are_float32_whatever_the_graph_has(half, picture, onnx_artifact):
    predictor, whole = Predictor(half[0], "cpu"), Predictor(onnx_artifact, "cpu")
    letterbox, prepared = predictor.prepare(picture)
    windows = np.array([letterbox.window], np.float32)
    found, expected = (each.borders(prepared[None], windows) for each in (predictor, whole))
    assert predictor.metadata.borders["p4"]["tensor"].endswith("/half")
    for name in ("p2", "p4", "rpn_deltas", "class_probs", "box_rois"):
        assert found[name].dtype == np.float32, name
        assert found[name].shape == expected[name].shape, name
    assert np.allclose(found["p4"], expected["p4"], atol=0.02 * np.abs(expected["p4"]).max())


def test_a_part_that_overflows_is_found_and_left_in_float(demo, shapes, onnx_artifact, tmp_path, monkeypatch):
    """The mask head's first layer times 10^7, its second divided by it: equal in float32, infinite in half."""
    source = onnx.load(onnx_artifact)
    first, second = (node for node in source.graph.node if re.search("mrcnn_mask_conv[12].*BiasAdd$", node.name))
    tensors = {tensor.name: tensor for tensor in source.graph.initializer}
    for name, factor in [*((name, 1e7) for name in first.input[1:]), (second.input[1], 1e-7)]:
        scaled = (numpy_helper.to_array(tensors[name]) * factor).astype(np.float32)
        tensors[name].CopyFrom(numpy_helper.from_array(scaled, name))
    del source.metadata_props[:]

    def export(_model, output, **_options):
        Path(output).write_bytes(source.SerializeToString())
        reseal(Path(output), read_metadata(onnx_artifact).to_json())
        return VERDICT

    monkeypatch.setattr(to_lower_precision, "export_onnx", export)
    lower = LowerPrecision("fp16", shapes.parent / "images")
    verdict = export_lower_precision(demo, tmp_path / "x.onnx", lower, checkpoint=FACTS)
    assert verdict.precision["left_in_float"] == ["mask head"]
    assert verdict.precision["passed"]


def test_its_stages_can_still_be_looked_into(int8, picture):
    predictor = Predictor(int8[0], "cpu")
    letterbox, prepared = predictor.prepare(picture)
    borders = predictor.borders(prepared[None], np.array([letterbox.window], np.float32))
    assert borders["p2"].shape == (1, 64, 64, 64)
    assert set(borders) == set(predictor.metadata.borders)


def test_without_annotations_the_float32_detections_are_the_truth(demo, shapes, tmp_path, whole_is_there):
    path = tmp_path / "demo.onnx"
    verdict = export_lower_precision(demo, path, LowerPrecision("int8", shapes.parent / "images"), checkpoint=FACTS)
    gate = verdict.precision
    assert (gate["against"], gate["measure"], gate["reference"]) == ("float32 detections", "mask AP", 1.0)
    assert (gate["pictures"], gate["calibrated"], gate["allowed"]) == (6, 6, 0.03)
    assert 0.97 <= gate["found"] < 1
    shown = call("show", path).output
    assert "int8: mask AP 1.0000 -> " in shown
    assert "objects in 6 images; 6 others for calibration" in shown


class Opened(Exception):  # noqa: N818
    """What a test wanted to see has happened."""


def divided(precision, folder, truth=None):
    """Names of the images that give ranges, and of those that are compared."""
    found = to_lower_precision._split(LowerPrecision(precision, folder, truth), pictures_of_folder(folder))
    judged = [each if isinstance(each, Path) else each.image for each in found.judged]
    return [path.name for path in found.calibrated], [path.name for path in judged]


@pytest.fixture
def folder_of(tmp_path):
    """Function that makes a folder of so many images, which nobody reads."""

    def make(count, name="photos"):
        folder = tmp_path / name
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:04}.png").touch()
        return folder

    return make


def annotated(paths):
    return Dataset("truth", ("BG", "thing"), tuple(Record(path.name, path, ()) for path in paths))


@pytest.mark.parametrize(
    ("count", "ranges", "compared"), [(12, 6, 6), (13, 6, 7), (40, 20, 20), (129, 64, 65), (300, 64, 200)]
)
def test_no_image_is_used_for_both(folder_of, count, ranges, compared):
    """As a video has frames: what gives ranges is spread over all of it, and half of a small folder is held out."""
    calibrated, judged = divided("int8", folder_of(count))
    assert (len(calibrated), len(judged)) == (ranges, compared)
    assert not set(calibrated) & set(judged)
    assert int(calibrated[-1][:4]) > count * 0.75
    assert len(set(calibrated + judged)) == min(count, ranges + compared)


def test_half_precision_needs_no_calibration(folder_of):
    calibrated, judged = divided("fp16", folder_of(20))
    assert (calibrated, len(judged)) == ([], 20)


def test_annotated_images_that_also_give_ranges_are_not_compared(folder_of):
    folder = folder_of(40)
    paths = pictures_of_folder(folder)
    calibrated, judged = divided("int8", folder, annotated(paths))
    assert (len(calibrated), len(judged)) == (20, 20)
    assert not set(calibrated) & set(judged)
    calibrated, judged = divided(
        "int8", folder, annotated([path.parent / ".." / "photos" / path.name for path in paths[:20]])
    )
    assert len(calibrated) == 30
    assert not set(calibrated) & set(judged)
    others = folder_of(9, "others")
    calibrated, judged = divided("int8", folder, annotated(pictures_of_folder(others)))
    assert (len(calibrated), len(judged)) == (40, 9)


@pytest.mark.parametrize(
    ("precision", "count", "truths"),
    [("int8", 1, None), ("int8", 11, None), ("fp16", 5, None), ("int8", 20, 5), ("int8", 5, 20)],
)
def test_too_few_images_are_refused_before_anything_is_converted(
    folder_of, demo, tmp_path, monkeypatch, precision, count, truths
):
    monkeypatch.setattr(to_lower_precision, "export_onnx", lambda *_a, **_o: pytest.fail("it was converted"))
    truth = None if truths is None else annotated(pictures_of_folder(folder_of(truths, "others")))
    lower = LowerPrecision(precision, folder_of(count), truth)
    with pytest.raises(ConversionError, match=r"needs at least .*6.* --calibrate or --truth"):
        export_lower_precision(demo, tmp_path / "x.onnx", lower, checkpoint=FACTS)
    assert not (tmp_path / "x.onnx").exists()


def test_ranges_come_from_the_images_for_calibration_alone(demo, shapes, tmp_path, monkeypatch, whole_is_there):
    given, said = [], []

    def quantize(_model, _predictor, pictures, *_arguments):
        given.extend(pictures)
        raise Opened

    def detected(predictor, pictures, min_score):
        compared.extend(pictures)
        return detected_dataset(predictor, pictures, min_score)

    compared = []
    monkeypatch.setattr(to_lower_precision, "quantize", quantize)
    monkeypatch.setattr(to_lower_precision, "detected_dataset", detected)
    lower = LowerPrecision("int8", shapes.parent / "images")
    with pytest.raises(Opened):
        export_lower_precision(demo, tmp_path / "x.onnx", lower, checkpoint=FACTS, progress=said.append)
    assert len(given) == len(compared) == 6
    assert not set(given) & set(compared)
    assert "6 images for calibration, 6 others for the comparison" in said


def test_masks_that_are_a_little_off_are_seen_without_annotations():
    """At an IoU of 0.5 alone, as before, nothing was lost."""
    dataset = shapes_dataset(6, 2, size=(128, 128))
    whole, reference = Perfect(dataset), score_masks(Perfect(dataset), dataset)
    gate = judge_precision("int8", reference, Shifted(whole, 2), dataset, "float32 detections", 0.03)
    assert not gate.passed
    assert score_masks(Shifted(whole, 2), dataset)["AP50"] > reference["AP50"] - 0.05


def gate_of(found):
    return PrecisionGate("int8", "annotations", "mask AP", 1, 1, 0.9, found, 0.01, {"a": (0.9, found)})


def test_constant_thresholds_are_fixed_after_the_accuracy_is_compared(
    demo, shapes, onnx_artifact, tmp_path, monkeypatch, picture
):
    targets = []

    def export(_model, output, *, target, **_options):
        targets.append(target.thresholds)
        shutil.copy(onnx_artifact, output)
        return VERDICT

    monkeypatch.setattr(to_lower_precision, "export_onnx", export)
    monkeypatch.setattr(to_lower_precision, "judge_precision", lambda *_arguments: gate_of(0.9))
    monkeypatch.setattr(to_lower_precision, "quantize", lambda model, *_arguments: model)
    path, lower = tmp_path / "x.onnx", LowerPrecision("int8", shapes.parent / "images", open_dataset(shapes))
    export_lower_precision(demo, path, lower, checkpoint=FACTS, target=Target(thresholds="constants"))
    assert targets == ["inputs"]
    assert [value.name for value in onnx.load(path).graph.input] == ["images", "windows"]
    predictor = Predictor(path, "cpu")
    assert predictor.metadata.thresholds == "constants"
    assert len(predictor(picture)) == len(Predictor(onnx_artifact, "cpu")(picture)) > 0


def test_the_part_that_costs_most_is_left_in_float(demo, shapes, tmp_path, monkeypatch, whole_is_there):
    """The FPN costs 0.3, the mask head 0.1, the rest nothing: the search takes two rounds."""
    costs = {"FPN": 0.3, "mask head": 0.1}
    tried = []

    def quantize(model, _predictor, _pictures, in_float, _folder):
        tried.append([part for part, nodes in nodes_by_part(model).items() if set(nodes) <= set(in_float)])
        return model

    def judge(*_arguments):
        return gate_of(0.9 - sum(cost for part, cost in costs.items() if part not in tried[-1]))

    monkeypatch.setattr(to_lower_precision, "quantize", quantize)
    monkeypatch.setattr(to_lower_precision, "judge_precision", judge)
    lower = LowerPrecision("int8", shapes.parent / "images", open_dataset(shapes))
    verdict = export_lower_precision(demo, tmp_path / "x.onnx", lower, checkpoint=FACTS)
    assert verdict.precision["left_in_float"] == ["FPN", "mask head"]
    assert len(tried) == 1 + len(PARTS) + len(PARTS) - 1
    assert read_metadata(tmp_path / "x.onnx").verdict["precision"]["left_in_float"] == ["FPN", "mask head"]


def test_nothing_is_written_when_it_costs_too_much(shapes, tmp_path, monkeypatch, whole_is_there):
    """The search has two parts here, all of them above."""
    monkeypatch.setattr("export.precision.quantize.PARTS", {"mask head": PARTS["mask head"], "rest": ("",)})
    monkeypatch.setattr(to_lower_precision, "judge_precision", lambda *_arguments: gate_of(0.5))
    monkeypatch.setattr(to_lower_precision, "quantize", lambda model, *_arguments: model)
    options = ["--precision", "int8", "--calibrate", shapes.parent / "images"]
    result = call("onnx", "demo", "-o", tmp_path / "x.onnx", *options)
    assert result.exit_code == 1
    assert "drops from 0.9000 to 0.5000; the largest allowed drop is 0.01" in result.output
    assert list(tmp_path.iterdir()) == []


def test_annotations_without_objects_are_refused_before_anything_is_converted(demo, folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(to_lower_precision, "export_onnx", lambda *_a, **_o: pytest.fail("it was converted"))
    lower = LowerPrecision("int8", folder_of(12), annotated(pictures_of_folder(folder_of(6, "others"))))
    with pytest.raises(DatasetError, match="none of its images has an object"):
        export_lower_precision(demo, tmp_path / "x.onnx", lower, checkpoint=FACTS)


def test_nothing_is_lowered_where_float32_finds_nothing(demo, shapes, tmp_path, monkeypatch, pytestconfig):
    monkeypatch.setattr(to_lower_precision, "export_onnx", copy_of(pytestconfig.rootpath / "maskrcnn" / "demo.onnx"))
    monkeypatch.setattr(to_lower_precision, "score_masks", lambda *_: {"AP": 0.0})
    lower = LowerPrecision("fp16", shapes.parent / "images", open_dataset(shapes))
    with pytest.raises(ConversionError, match="the float32 model finds none of the objects"):
        export_lower_precision(demo, tmp_path / "x.onnx", lower, checkpoint=FACTS)
    assert list(tmp_path.iterdir()) == []


def test_every_node_has_one_part(onnx_artifact):
    model = onnx.load(onnx_artifact)
    parts = nodes_by_part(model)
    assert list(parts) == list(PARTS)
    names = [name for nodes in parts.values() for name in nodes]
    assert len(names) == len(set(names)) == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
    assert all("rpn_class_raw" in name or "rpn_bbox_pred" in name for name in parts["RPN outputs"])
    assert len(parts["stem"]) == 1


class Perfect:
    """Finds every object of a dataset, or all but some."""

    def __init__(self, dataset, missed=()):
        self.class_names, self.missed = dataset.class_names, missed
        self.answers = {record.image().tobytes(): record for record in dataset.records}

    def __call__(self, image):
        record = self.answers[image.tobytes()]
        objects = [each for each in record.load_instances() if each.class_id not in self.missed]
        masks = [np.array(mask_of(each)) for each in objects]
        ys = [np.flatnonzero(mask.any(axis=1)) for mask in masks]
        xs = [np.flatnonzero(mask.any(axis=0)) for mask in masks]
        boxes = [[x[0], y[0], x[-1] + 1, y[-1] + 1] for x, y in zip(xs, ys, strict=True)]
        crops = [mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1] for mask, x, y in zip(masks, xs, ys, strict=True)]
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.full(len(objects), 0.9, np.float32),
            np.array([each.class_id for each in objects], np.int32),
            np.array([nearest(crop) for crop in crops], np.float32).reshape(-1, 28, 28),
            image.shape[:2],
            self.class_names,
            "aligned",
        )


class Shifted:
    """Finds what another finds, some pixels further to the right."""

    def __init__(self, other, pixels):
        self.class_names, self.other, self.pixels = other.class_names, other, pixels

    def __call__(self, image):
        found = self.other(image)
        return replace(found, boxes=found.boxes + np.array([self.pixels, 0, self.pixels, 0], np.float32))


def mask_of(instance):
    from runtime.masks.rle import decode

    return decode(instance.mask)


def nearest(crop):
    rows, columns = ((np.arange(28) + 0.5) / 28 * side for side in crop.shape)
    return crop[rows.astype(int)][:, columns.astype(int)]


def test_a_class_that_is_lost_is_seen_in_the_gate():
    dataset = shapes_dataset(6, 2, size=(128, 128))
    whole = Perfect(dataset)
    reference = score_masks(whole, dataset)
    gate = judge_precision("int8", reference, Perfect(dataset, missed=(2,)), dataset, "annotations", 0.01)
    assert not gate.passed
    assert gate.classes["circle"][1] == 0
    assert gate.classes["square"][0] == gate.classes["square"][1] > 0.7
    assert gate.drop == pytest.approx(gate.classes["circle"][0] / 3, abs=1e-6)
    assert judge_precision("int8", reference, whole, dataset, "float32 detections", 0).passed
    assert not replace(gate, reference=gate.found, objects=0).passed  # without objects, nothing was compared


def test_pictures_without_detections_prove_nothing(demo, tmp_path):
    from PIL import Image

    from maskrcnn.checkpoint_predictor import CheckpointPredictor

    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(ConversionError, match="give images with objects"):
        detected_dataset(CheckpointPredictor(demo), [tmp_path / "black.png"], 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "--calibrate"),
        (["--calibrate", "."], "int8"),
        (["--truth", "x.json"], "int8"),
        (["--max-drop", "0"], "int8"),
        (["--precision", "int7"], "int7"),
    ],
)
def test_options_that_do_not_go_together(options, message, tmp_path):
    result = call("onnx", "demo", "-o", tmp_path / "x.onnx", *options)
    assert result.exit_code == 2
    assert message in result.output


def test_a_folder_without_pictures_is_refused_first(demo, tmp_path):
    with pytest.raises(ImageError, match="has no images"):
        export_lower_precision(demo, tmp_path / "x.onnx", LowerPrecision("int8", tmp_path), checkpoint=FACTS)


def test_a_package_that_is_missing_is_missed_before_anything_is_converted(demo, shapes, tmp_path, monkeypatch):
    def missing(_max_detections):
        raise MissingPackageError("pycocotools", "train", "average precision")

    monkeypatch.setattr(to_lower_precision, "check_coco", missing)
    monkeypatch.setattr(
        to_lower_precision, "export_onnx", lambda *_arguments, **_options: pytest.fail("it was converted")
    )
    with pytest.raises(MissingPackageError):
        export_lower_precision(
            demo, tmp_path / "x.onnx", LowerPrecision("int8", shapes.parent / "images"), checkpoint=FACTS
        )
