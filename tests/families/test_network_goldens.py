"""The network with another program's weights, stage by stage, against what that program computed."""

import pickle

import families
import golden
import numpy as np
import pytest
import tensorflow as tf
from pytorch_models.detectron2_yaml import yaml_text

import maskrcnn
from export.verify.source import SourceRows, compare_image
from maskrcnn.checkpoint_predictor import CheckpointPredictor
from maskrcnn.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from maskrcnn.checkpoints.families import detectron2, torchvision
from maskrcnn.checkpoints.families.mapping import load_state, state_of
from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.model import MaskRCNN

pytestmark = families.needs_goldens

CASES = ("v1-landscape", "v1-portrait", "v1-coco", "v2-landscape", "d2-r50")
TOLERANCE = 1e-5  # of the largest value
BOXES, MASKS = 40, 12  # as many crops are made here, in NumPy


class Run:
    """The network of a case, run on its input."""

    def __init__(self, case):
        self.case, self.golden, self.detectron2 = case, families.Case(case), case.startswith("d2")
        names = families.class_names(case)
        self.model = MaskRCNN(Config(model=ModelConfig(class_names=names, **families.KINDS[case[:2]])))
        self.table = (detectron2 if self.detectron2 else torchvision).table(self.model.config.model)
        self.state = families.weights(case)
        self.report = load_state(self.model, self.state, self.table, case)
        images, (height, width) = families.float_input(case)
        images = images.astype(np.uint8) if self.detectron2 else images
        self.molded = self.model.mold(tf.constant(images), tf.constant([[0, 0, height, width]], tf.float32))
        self.features = self.model.features(self.molded)
        self.logits, self.deltas = self.model.region_probs(self.features)

    def crops(self, boxes, bins):
        """Their crops [N, bins, bins, C] from our features."""
        levels = [level.numpy()[0] for level in self.features[:4]]
        return families.roi_align(levels, boxes, bins, self.detectron2)

    def sampled(self, name, ours, rows=None):
        """Largest difference of the golden values of a tensor, of its first `rows` if given, relative to all."""
        facts = self.golden.facts["tensors"][name]
        places = families.recipe().sample_indices(name, int(np.prod(facts["shape"])), 4096)
        expected = self.golden[name].reshape(-1)
        if rows is not None:
            used = places < rows * np.prod(facts["shape"][1:])
            assert used.sum() > 30
            places, expected = places[used], expected[used]
        return np.abs(np.asarray(ours).reshape(-1)[places] - expected).max() / facts["max"]


@pytest.fixture(scope="module", params=CASES)
def run(request):
    return Run(request.param)


def test_every_array_of_the_file_is_used(run):
    assert not [*run.report.missing, *run.report.leftover, *run.report.excluded]
    assert run.model.config.model.num_classes == run.golden["class_logits"].shape[1]


def test_the_molded_input(run):
    molded = np.moveaxis(run.molded.numpy(), -1, 1)
    assert run.sampled("input", molded[:, ::-1] if run.detectron2 else molded) < TOLERANCE


@pytest.mark.parametrize("level", range(2, 7))
def test_the_features(run, level):
    assert run.sampled(f"p{level}", np.moveaxis(run.features[level - 2].numpy(), -1, 1)) < TOLERANCE


def test_the_rpn(run):
    assert run.logits.shape[2] == 1
    assert golden.relative_difference(run.logits[0, :, 0], run.golden["rpn_logits"]) < TOLERANCE
    deltas = run.deltas.numpy()[0][:, [1, 0, 3, 2]]
    assert golden.relative_difference(deltas, run.golden["rpn_deltas"]) < TOLERANCE


def test_the_box_head(run):
    crops = run.crops(run.golden["proposals"][:BOXES], 7)
    assert run.sampled("box_rois", np.moveaxis(crops, -1, 1), BOXES) < TOLERANCE
    logits, deltas = (output.numpy() for output in run.model.box_head(crops))
    deltas = deltas[..., [1, 0, 3, 2]]
    if run.detectron2:
        assert not deltas[:, 0].any()
        logits, deltas = np.roll(logits, -1, axis=1), deltas[:, 1:]
    assert golden.relative_difference(logits, run.golden["class_logits"][:BOXES]) < TOLERANCE
    assert run.sampled("box_deltas", deltas, BOXES) < TOLERANCE


def test_the_mask_head(run):
    crops = run.crops(run.golden["input_boxes"][:MASKS], 14)
    assert run.sampled("mask_rois", np.moveaxis(crops, -1, 1), MASKS) < TOLERANCE
    class_ids = run.golden["labels"][:MASKS].astype(np.int32) + run.detectron2
    masks = run.model.segment(tf.constant(crops), tf.constant(class_ids))
    assert np.abs(masks - run.golden["masks"][:MASKS]).max() < 1e-4


def test_the_weights_are_written_back_as_they_were(run):
    written = state_of(run.model, run.table)
    assert written.keys() == run.state.keys()
    assert all(np.array_equal(written[key], array) for key, array in run.state.items())


def test_a_checkpoint_holds_the_model(run, tmp_path):
    if run.case not in ("v2-landscape", "d2-r50"):
        pytest.skip("one case of each program is enough")
    save_checkpoint(run.model, tmp_path / "model.weights.h5")
    loaded, _ = load_checkpoint(tmp_path / "model.weights.h5")
    assert loaded.config == run.model.config
    crops = np.random.default_rng(0).normal(size=(1, 7, 7, 256)).astype(np.float32)
    assert np.array_equal(loaded.box_head(crops)[0], run.model.box_head(crops)[0])
    assert np.array_equal(loaded.features(run.molded)[0], run.features[0])


@pytest.mark.slow
def test_from_the_file_of_detectron2_to_masks(tmp_path):
    case = families.Case("d2-r50")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": families.weights("d2-r50"), "__author__": "a test"}))
    sizes = {"INPUT.MIN_SIZE_TEST": case.facts["short"], "INPUT.MAX_SIZE_TEST": case.facts["longest"]}
    classes = case.facts["classes"]
    (tmp_path / "x.yaml").write_text(yaml_text(sizes | {"MODEL.ROI_HEADS.NUM_CLASSES": classes}))
    model, _ = maskrcnn.load_checkpoint(tmp_path / "model.pkl", config=tmp_path / "x.yaml", family="detectron2")
    detection = model.config.detection
    image = families.recipe().picture("d2-r50", *case.facts["picture"], case.facts["seed"])
    found = CheckpointPredictor(model, detection.min_score)(image)
    masks = np.unpackbits(case["pasted"], count=int(np.prod(case.shape("pasted")))).reshape(case.shape("pasted"))
    theirs = SourceRows(case["boxes"], case["scores"], case["final_labels"] + 1, masks.astype(bool))
    limits = detection.min_score, detection.nms_threshold, detection.max_detections
    compared = compare_image("d2-r50", theirs, found, *limits)
    assert (compared.expected, compared.found, compared.matched) == (100, 100, 100)
    assert compared.masks_within
    assert compared.boxes < 0.01
    assert compared.scores < 1e-4
