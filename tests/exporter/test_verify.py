"""The parity check can fail: changed weights, operators and outputs are found, and nothing is written."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tensorflow as tf
from PIL import Image

from export import export_onnx, export_savedmodel, verify_artifact
from export.convert import handlers
from export.convert.handlers import HANDLERS
from export.describe import checkpoint_facts
from export.errors import ParityError
from export.target import Target
from export.verify.pictures import MAX_PICTURES, verification_pictures
from export.verify.reference import Difference, Reference
from export.verify.tolerances import STAGES
from export.verify.verify import NOTHING_NEAR, compare_run, make_feeds
from export.verify.written import stages_of
from maskrcnn import demo_model
from maskrcnn.configuration.model import Config
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN
from runtime.artifact import OUTPUT_NAMES
from runtime.artifact_files.read import read_metadata
from runtime.engines.choose import open_backend
from runtime.engines.saved_model import FunctionStages
from runtime.errors import ImageError, OutputError

FACTS = {"name": "a checkpoint"}


def names_in(folder):
    return sorted(item.name for item in folder.iterdir())


@pytest.fixture(params=["onnx", "savedmodel"])
def artifact(request):
    return request.getfixturevalue(f"{request.param}_artifact")


# Verified again: the same model, and others


def test_artifact_is_equal_to_its_model(artifact, demo, one_picture):
    verdict = verify_artifact(artifact, demo, verify_images=one_picture)
    assert verdict.passed, verdict.failures()
    assert verdict.detections > 10
    assert len(verdict.stages) == 17
    assert [case.case.split(" (")[1] for case in verdict.cases] == [
        "alone, 1)",
        "batch, 2)",
        "batch, 2)",
        "no detections, 1)",
    ]
    assert [case.expected > 0 for case in verdict.cases] == [True, True, True, False]


@pytest.mark.parametrize(("device", "engine"), [("cpu", "onnxruntime "), ("openvino", "openvino 20")])
def test_the_packaged_artifact_is_that_of_the_packaged_checkpoint(demo, one_picture, pytestconfig, device, engine):
    """If this fails after the demo was trained again or the graph has changed: `make demo-onnx`."""
    path = pytestconfig.rootpath / "maskrcnn" / "demo.onnx"
    metadata = read_metadata(path)
    assert metadata.checkpoint == checkpoint_facts(None)
    assert Config.from_dict(dict(metadata.config)) == demo.config
    verdict = verify_artifact(path, demo, device=device, verify_images=one_picture)
    assert verdict.passed, verdict.failures()
    assert verdict.engine.startswith(engine)
    assert verdict.engine.endswith(f", {device} (stages on the cpu)")
    assert path.stat().st_size < 15e6


def test_one_changed_weight_of_the_mask_head_is_found(onnx_artifact, one_picture):
    model = demo_model()
    (bias,) = (v for v in model.mask_head.get_layer("mrcnn_mask").variables if v.name == "bias")
    value = bias.numpy()
    value[2] += 0.01  # most detections are of class 2
    bias.assign(value)
    verdict = verify_artifact(onnx_artifact, model, verify_images=one_picture)
    assert not verdict.passed
    assert [stage.tensor for stage in verdict.stages if not stage.passed] == ["masks"]
    assert not verdict.cases[0].passed
    assert any("mask head" in objection for objection in verdict.cases[0].objections)
    assert verdict.cases[0].expected == verdict.cases[0].found  # boxes and classes are those of the artifact


def test_weights_of_the_first_layer_changed_by_two_thousandths_are_found(onnx_artifact, one_picture):
    model = demo_model()
    kernel = model.backbone.get_layer("conv1").variables[0]
    kernel.assign(kernel.numpy() * np.float32(1 + 2e-3))
    verdict = verify_artifact(onnx_artifact, model, verify_images=one_picture)
    assert {stage.stage for stage in verdict.stages if not stage.passed} == {"backbone"}


def test_model_of_other_classes_is_refused(artifact, demo):
    config = demo.config
    other = MaskRCNN(replace(config, model=replace(config.model, class_names=("BG", "a", "b", "c", "d"))))
    with pytest.raises(CheckpointMismatchError, match=r"with 4 classes, but the checkpoint is 'demo' with 5"):
        verify_artifact(artifact, other)


def test_model_of_another_size_is_refused(onnx_artifact, demo):
    config = demo.config
    other = MaskRCNN(replace(config, resize=replace(config.resize, max_dim=320)))
    with pytest.raises(CheckpointMismatchError, match="they differ in resize"):
        verify_artifact(onnx_artifact, other)


def test_another_value_range_is_refused(onnx_artifact, demo):
    """The same graph, but 12-bit images would reach it nearly black."""
    other = MaskRCNN(replace(demo.config, pixels=replace(demo.config.pixels, value_range=(0, 4095))))
    with pytest.raises(CheckpointMismatchError, match="they differ in pixels"):
        verify_artifact(onnx_artifact, other)


# A steep head, which amplifies whatever reaches it


@pytest.fixture(scope="module")
def steep():
    """A model with ten times its class logits, of which the last detection is undecided, and the demo image."""
    model = demo_model()
    pictures = verification_pictures(None, 3, model.config.resize)[:1]
    feeds = make_feeds(pictures, (0.0, model.config.detection.nms_threshold))
    reference = Reference(model)
    found = {name: array[0] for name, array in reference.run(feeds)[1].items() if not name.endswith("rois")}
    last = found["num_detections"] - 1
    class_id, probs = found["class_ids"][last], found["class_probs"].astype(np.float64)
    proposal = np.abs(probs[:, class_id] - found["scores"][last]).argmin()
    for weight in model.weights:
        if "mrcnn_class_logits" in weight.path:
            value = weight.numpy() * np.float32(10)
            if "bias" in weight.path:
                value[0] += 10 * np.log(probs[proposal, class_id] / probs[proposal, 0]) - 1
            weight.assign(value)
    return reference, feeds, pictures


def verified_with(steep, factor, part):
    """Compare with an artifact of which some kernels are wrong by a factor."""
    reference, feeds, pictures = steep
    kernels = [weight for weight in reference.model.weights if "kernel" in weight.path and part(weight.path)]
    before = [kernel.numpy() for kernel in kernels]
    for kernel in kernels:
        kernel.assign(kernel.numpy() * np.float32(factor))
    artifact = FunctionStages(reference._function.get_concrete_function())  # its weights are now constants
    for kernel, value in zip(kernels, before, strict=True):
        kernel.assign(value)
    (case,) = compare_run(reference, lambda given: artifact.run(given, OUTPUT_NAMES), artifact, feeds, "x", pictures)
    return case


def test_scores_that_only_boxes_moved_are_explained(steep):
    case = verified_with(steep, 1 + 9e-5, lambda path: "rpn_bbox" in path)
    assert case.scores > STAGES["class_probs"].bound
    assert case.passed, case.objections
    assert any(decision.startswith("box head: the score of row") for decision in case.decisions)


def test_scores_that_wrong_features_moved_are_not_excused_by_a_moved_box(steep):
    case = verified_with(steep, 1 + 9e-5, lambda path: any(f"fpn_p{level}" in path for level in range(2, 6)))
    assert case.scores > STAGES["class_probs"].bound
    assert not case.passed
    assert case.objections == (NOTHING_NEAR,)


# Outputs changed between the engine and the comparison


@pytest.fixture(scope="module")
def setting(demo, onnx_artifact):
    """Model, artifact and the demo image, in which no selection depends on less than the margin."""
    metadata = read_metadata(onnx_artifact)
    pictures = verification_pictures(None, 3, demo.config.resize)[:1]
    feeds = make_feeds(pictures, (0.7, demo.config.detection.nms_threshold))  # leaves some rows unused
    backend, stages = open_backend(onnx_artifact, metadata, "cpu"), stages_of(onnx_artifact, metadata)
    reference = Reference(demo)
    examined = Difference(reference, stages, feeds, reference.run(feeds)[1])
    assert examined.objections == []
    return reference, backend, stages, feeds, pictures, examined


@pytest.fixture
def case_of(setting, monkeypatch):
    """Function that returns the case's result after a change to the artifact's outputs."""
    reference, backend, stages, feeds, pictures, examined = setting
    # The artifact's graph is sound in all these tests: it is examined once.
    monkeypatch.setattr("export.verify.verify.Difference", lambda *_arguments: examined)

    def run(change):
        def perturbed(inputs):
            outputs = {name: np.array(array) for name, array in backend(inputs).items()}
            change(outputs)
            return outputs

        (case,) = compare_run(reference, perturbed, stages, feeds, "changed", pictures)
        return case

    return run


def add(name, index, by):
    def change(outputs):
        assert 5 < outputs["num_detections"][0] < len(outputs["scores"][0])
        outputs[name][(0, *index)] += by

    return change


def drop_last(outputs):
    outputs["num_detections"] -= 1
    for name in ("boxes", "scores", "class_ids", "masks"):
        outputs[name][0, outputs["num_detections"][0]] = 0


def drop_first(outputs):
    outputs["num_detections"] -= 1
    for name in ("boxes", "scores", "class_ids", "masks"):
        outputs[name][0, :-1] = outputs[name][0, 1:].copy()


def swap(outputs):
    last = outputs["num_detections"][0] - 1
    assert outputs["scores"][0, 0] - outputs["scores"][0, last] > 1e-3
    for name in ("boxes", "scores", "class_ids", "masks"):
        outputs[name][0, [0, last]] = outputs[name][0, [last, 0]]


def other_class(outputs):
    outputs["class_ids"][0, 2] = outputs["class_ids"][0, 2] % 3 + 1


def one_more(outputs):
    count = outputs["num_detections"][0]
    outputs["num_detections"] += 1
    outputs["boxes"][0, count] = 1, 2, 3, 4


def turn_boxes(outputs):
    outputs["boxes"] = outputs["boxes"][..., [1, 0, 3, 2]]


CHANGES = {
    "score + 1e-4": add("scores", (2,), 1e-4),
    "score - 1e-4": add("scores", (0,), -1e-4),
    "box + 0.02 px": add("boxes", (3, 1), 0.02),
    "box - 0.02 px": add("boxes", (0, 2), -0.02),
    "mask + 2e-4": add("masks", (1, 5, 7), 2e-4),
    "mask is NaN": add("masks", (1, 5, 7), np.nan),
    "last row dropped": drop_last,
    "first row dropped": drop_first,
    "rows swapped": swap,
    "other class": other_class,
    "one row more": one_more,
    "y and x exchanged": turn_boxes,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_output_fails_with_an_objection(case_of, change):
    case = case_of(change)
    assert not case.passed
    assert case.objections == ("the artifact's outputs do not follow from its own tensors between stages",)
    assert case.decisions == ()


def test_a_near_decision_does_not_excuse_outputs_that_were_never_computed(case_of, setting, monkeypatch):
    monkeypatch.setattr(type(setting[-1]), "decisions", lambda *_arguments: ["two rows differ in score by 1e-07"])
    case = case_of(CHANGES["last row dropped"])
    assert case.decisions
    assert not case.passed


def test_a_difference_without_a_near_decision_is_not_excused(case_of, setting, monkeypatch):
    monkeypatch.setattr(type(setting[-1]), "objections_to", lambda *_arguments: [])
    case = case_of(CHANGES["last row dropped"])
    assert case.objections == (NOTHING_NEAR,)
    assert not case.passed


@pytest.mark.parametrize(
    "change",
    [
        lambda outputs: None,
        add("scores", (2,), 5e-6),
        add("boxes", (3, 1), 0.005),
        add("boxes", (0, 2), -0.005),
        add("masks", (1, 5, 7), 5e-5),
        add("boxes", (-1, 0), 5.0),
    ],
    ids=["nothing", "score", "box", "box to the left", "mask", "row not in use"],
)
def test_change_below_tolerance_passes(case_of, change):
    case = case_of(change)
    assert case.passed
    assert case.expected == case.found > 5
    assert (case.decisions, case.objections) == ((), ())


# Exports that must not happen


def shifted_rois(monkeypatch):
    """Boxes half a cell off: as RoiAlign without its half-pixel mode expects them."""
    rois = handlers._rois_in_cells

    def broken(ctx, *arguments):
        half = handlers._const(ctx, [0.5], np.float32)
        return handlers._make(ctx, "Sub", [rois(ctx, *arguments), half])

    monkeypatch.setattr(handlers, "_rois_in_cells", broken)


def other_threshold(monkeypatch):
    handler, arguments = HANDLERS["CombinedNonMaxSuppression"]

    def broken(ctx, node, *rest):
        ctx.replace_input(node, node.input[4], handlers._const(ctx, 0.45, np.float32), 4)
        handler(ctx, node, *rest)

    monkeypatch.setitem(HANDLERS, "CombinedNonMaxSuppression", (broken, arguments))


def other_pixels(monkeypatch):
    handler, arguments = HANDLERS["CropAndResize"]

    def broken(ctx, *rest):
        handler(ctx, *rest)
        for node in ctx.get_nodes():
            if node.type == "RoiAlign":
                node.set_attr("coordinate_transformation_mode", "output_half_pixel")

    monkeypatch.setitem(HANDLERS, "CropAndResize", (broken, arguments))


@pytest.mark.parametrize(
    ("break_it", "stage"),
    [pytest.param(shifted_rois, "box roi align", marks=pytest.mark.slow), (other_threshold, "proposals")],
)
def test_broken_operator_is_never_written(tiny, tmp_path, one_picture, monkeypatch, break_it, stage):
    output, beside = tmp_path / "model.onnx", tmp_path / "model.onnx.verdict.json"
    output.write_bytes(b"the artifact of yesterday")
    beside.write_bytes(b"its verdict")
    break_it(monkeypatch)
    with pytest.raises(ParityError) as refused:
        export_onnx(tiny, output, checkpoint=FACTS, verify_images=one_picture, overwrite=True)
    verdict = refused.value.verdict
    failed = {result.stage for result in verdict.stages if not result.passed}
    assert stage in failed
    assert not failed & {"backbone", "rpn", "box head", "mask head"}  # fed with what the model has, they are sound
    assert any(not case.passed for case in verdict.cases)
    assert output.read_bytes() == b"the artifact of yesterday"
    assert beside.read_bytes() == b"its verdict"
    assert names_in(tmp_path) == ["model.onnx", "model.onnx.verdict.json"]


def test_broken_operator_leaves_nothing_where_nothing_was(tiny, tmp_path, one_picture, monkeypatch):
    other_pixels(monkeypatch)
    with pytest.raises(ParityError, match="stage 'box roi align': box_rois differs"):
        export_onnx(tiny, tmp_path / "new" / "model.onnx", checkpoint=FACTS, verify_images=one_picture)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_savedmodel_with_other_weights_is_never_written(make_tiny, tmp_path, one_picture, monkeypatch):
    """The weights change while the folder is written."""
    model, save = make_tiny(), tf.saved_model.save
    bias = next(v for v in model.mask_head.get_layer("mrcnn_mask").variables if v.name == "bias")

    def save_another(module, path, signatures):
        right = bias.numpy()
        bias.assign(right + 0.01)
        save(module, path, signatures=signatures)
        bias.assign(right)

    monkeypatch.setattr(tf.saved_model, "save", save_another)
    output = tmp_path / "model"
    (output / "assets").mkdir(parents=True)
    (output / "assets" / "artifact.json").write_bytes(b"the artifact of yesterday")
    with pytest.raises(ParityError, match="stage 'mask head': masks differs") as refused:
        export_savedmodel(model, output, checkpoint=FACTS, verify_images=one_picture, overwrite=True)
    assert [r.tensor for r in refused.value.verdict.stages if not r.passed] == ["masks"]
    assert names_in(tmp_path) == ["model"]
    assert [path for path in output.rglob("*") if path.is_file()] == [output / "assets" / "artifact.json"]
    assert (output / "assets" / "artifact.json").read_bytes() == b"the artifact of yesterday"


def test_model_that_detects_nothing_is_not_proven(make_tiny, tmp_path, one_picture):
    model = make_tiny()
    bias = next(v for v in model.box_head.get_layer("mrcnn_class_logits").variables if v.name == "bias")
    bias.assign(np.float32([1000, 0, 0, 0]))  # all is background
    nothing = r"the model detects nothing in the verification images.*--verify-images"
    with pytest.raises(ParityError, match=nothing) as refused:
        export_onnx(model, tmp_path / "model.onnx", checkpoint=FACTS, verify_images=one_picture)
    verdict = refused.value.verdict
    assert verdict.score_threshold == 0  # tried with the lowest threshold, too
    assert all(stage.passed for stage in verdict.stages)
    assert names_in(tmp_path) == []


def test_existing_output_is_refused_before_anything_is_done(tiny, tmp_path):
    said = []
    for export, path in ((export_onnx, tmp_path / "a.onnx"), (export_savedmodel, tmp_path / "a")):
        path.write_bytes(b"mine")
        with pytest.raises(OutputError, match="already exists"):
            export(tiny, path, checkpoint=FACTS, progress=said.append)
        assert path.read_bytes() == b"mine"
    assert said == []


# Pictures


def test_bundled_pictures_have_several_shapes(demo):
    pictures = verification_pictures(None, 3, demo.config.resize)
    assert len(pictures) >= 3
    assert len({picture.window for picture in pictures}) == len(pictures)
    assert {picture.image.shape for picture in pictures} == {(256, 256, 3)}


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_bundled_pictures_have_the_models_channels(demo, channels):
    pictures = verification_pictures(None, channels, demo.config.resize)
    assert {picture.image.shape[-1] for picture in pictures} == {channels}
    assert all(picture.image.any() for picture in pictures)


def test_pictures_of_a_folder(tmp_path, picture, demo):
    for index in reversed(range(MAX_PICTURES + 2)):
        Image.fromarray(picture[: 100 + index]).save(tmp_path / f"{index:02}.PNG")
    (tmp_path / "notes.txt").write_text("not a picture")
    pictures = verification_pictures(tmp_path, 3, demo.config.resize)
    assert [each.name for each in pictures] == [f"{index:02}.PNG" for index in range(MAX_PICTURES)]


def missing(folder):
    return folder / "nowhere"


def empty(folder):
    return folder


def without_pictures(folder):
    (folder / "notes.txt").write_text("text")
    return folder


def broken(folder):
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "nowhere is not a folder"),
        (empty, "has no images"),
        (without_pictures, "has no images"),
        (broken, r"b\.png"),
    ],
)
def test_folder_that_cannot_be_used(tiny, tmp_path, make, message):
    (tmp_path / "pictures").mkdir()
    folder, said = make(tmp_path / "pictures"), []
    for export in (export_onnx, export_savedmodel):
        with pytest.raises(ImageError, match=message):
            export(tiny, tmp_path / "model", checkpoint=FACTS, verify_images=folder, progress=said.append)
    assert said == []  # refused before the conversion
    assert names_in(tmp_path) == ["pictures"]


# Exports of other configurations


@pytest.mark.parametrize(
    ("channels", "sampling", "opset"),
    [(1, "roi_align", 17), (6, "crop_and_resize", 18)],
    ids=["1 channel, roi_align", "6 channels, opset 18"],
)
def test_other_configurations_are_exported_and_equal(make_tiny, tmp_path, channels, sampling, opset):
    model = make_tiny(image_channels=channels, mean_pixel=(120.0,) * channels, roi_sampling=sampling)
    output = tmp_path / "model.onnx"
    verdict = export_onnx(model, output, checkpoint=FACTS, target=Target(opset=opset))
    assert verdict.passed
    assert verdict.detections > 5
    metadata = read_metadata(output)
    assert (metadata.image_channels, metadata.opset, metadata.checkpoint) == (channels, opset, FACTS)
    assert metadata.verdict == verdict.to_dict() == json.loads((tmp_path / "model.onnx.verdict.json").read_text())
    graph = onnx.load(output)
    assert [entry.version for entry in graph.opset_import if entry.domain == ""] == [opset]
    aligned = [node for node in graph.graph.node if node.op_type == "RoiAlign"]
    assert len(aligned) == 2  # boxes, masks
    ratios = {a.i for node in aligned for a in node.attribute if a.name == "sampling_ratio"}
    assert ratios == {2 if sampling == "roi_align" else 1}
    assert names_in(tmp_path) == ["model.onnx", "model.onnx.verdict.json"]
