"""The Keras model as a predictor: the artifact's interface, live weights, one trace."""

import models
import numpy as np
import pytest

from maskrcnn.checkpoint_predictor import EVALUATION_SCORE_THRESHOLD, CheckpointPredictor
from maskrcnn.demo import demo_model
from runtime import Predictor
from runtime.errors import ImageError, InputError
from runtime.pictures.letterbox import plan_letterbox
from runtime.pictures.read import MAX_PIXELS
from runtime.steps import PredictorSteps


@pytest.fixture(scope="module")
def predictor():
    return CheckpointPredictor(models.demo())


def test_the_interface_is_that_of_the_artifact_s_predictor(predictor):
    for name in ("__call__", "prepare", "run", "finish", "class_names", "score_threshold", "nms_threshold"):
        assert hasattr(Predictor, name) or name.endswith("threshold")
        assert hasattr(predictor, name)
    assert isinstance(predictor, PredictorSteps)
    assert predictor.class_names == models.demo().config.model.class_names


def test_the_detections_are_those_of_the_artifact(onnx_artifact, demo, picture):
    ours = CheckpointPredictor(demo, score_threshold=0.3, nms_threshold=0.4)(picture)
    theirs = Predictor(onnx_artifact, "cpu", score_threshold=0.3, nms_threshold=0.4)(picture)
    assert len(ours) == len(theirs) > 5
    np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.05)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    assert (ours.image_size, ours.class_names, ours.paste_mode) == (
        theirs.image_size,
        theirs.class_names,
        theirs.paste_mode,
    )


def test_the_model_itself(predictor, picture):
    config = models.demo().config
    letterbox = plan_letterbox(picture.shape[:2], config.resize)
    window = np.array([letterbox.window], np.float32)
    expected = models.demo().detect(letterbox.apply(picture)[None], window, 0.05, config.detection.nms_threshold)
    outputs = predictor.run(letterbox.apply(picture)[None], window)
    assert set(outputs) == set(expected)
    for name, array in outputs.items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=1e-3)


def test_thresholds(picture):
    model = models.demo()
    assert CheckpointPredictor(model).score_threshold == EVALUATION_SCORE_THRESHOLD == 0.05
    assert CheckpointPredictor(model).nms_threshold == model.config.detection.nms_threshold
    scores = CheckpointPredictor(model)(picture).scores
    middle = float(np.median(scores))
    assert scores.min() < middle
    assert CheckpointPredictor(model, score_threshold=middle)(picture).scores.min() >= np.float32(middle)
    with pytest.raises(InputError, match=r"score_threshold is 1.5: expected a number from 0 to 1"):
        CheckpointPredictor(model, score_threshold=1.5)
    with pytest.raises(InputError, match="nms_threshold is nan"):
        CheckpointPredictor(model, nms_threshold=float("nan"))
    predictor = CheckpointPredictor(model, 0.3, 0.4, 5000)
    for name, bad in {"score_threshold": "7", "nms_threshold": 10**400, "max_pixels": -3}.items():
        before = getattr(predictor, name)
        with pytest.raises(InputError, match=f"^{name} is "):
            setattr(predictor, name, bad)
        assert getattr(predictor, name) == before
        setattr(predictor, name, None)
    defaults = predictor.score_threshold, predictor.nms_threshold, predictor.max_pixels
    assert defaults == (EVALUATION_SCORE_THRESHOLD, model.config.detection.nms_threshold, MAX_PIXELS)


def test_thresholds_of_one_call(picture):
    predictor = CheckpointPredictor(models.demo(), 0.3, 0.4)
    found = predictor(picture)
    middle = float(np.median(found.scores))
    np.testing.assert_array_equal(predictor(picture, score_threshold=middle).boxes, found.filter(middle).boxes)
    assert len(predictor(picture, score_threshold=0, nms_threshold=1)) > len(found)
    assert (predictor.score_threshold, predictor.nms_threshold) == (0.3, 0.4)
    for name, value in {"score_threshold": 1.5, "nms_threshold": "0.4"}.items():
        with pytest.raises(InputError, match=f"^{name} is .*: expected a number from 0 to 1$"):
            predictor(None, **{name: value})
    assert repr(predictor) == "CheckpointPredictor('demo', 3 classes, score_threshold=0.3, nms_threshold=0.4)"


def test_the_image_is_remembered(picture):
    image = picture.copy()
    found = CheckpointPredictor(models.demo(), 0.3)(image)
    np.testing.assert_array_equal(found.draw(), found.draw(picture))
    assert CheckpointPredictor(models.demo(), remember_image=False)(image).remembered is None


def test_weights_are_read_at_each_call_and_the_graph_is_traced_once(picture):
    model = demo_model()
    predictor = CheckpointPredictor(model)
    before = predictor(picture)
    kernel = next(w for w in model.box_head.weights if w.path.endswith("mrcnn_class_logits/bias"))
    kernel.assign(np.where(np.arange(kernel.shape[0]) == 2, 9.0, 0.0).astype(np.float32))
    after = predictor(picture[:100, :90])
    assert set(before.class_ids.tolist()) != {2} == set(after.class_ids.tolist())
    assert predictor._detect.experimental_get_tracing_count() == 1


def test_pictures_that_cannot_be_used(predictor, tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        predictor(tmp_path / "none.png")
    with pytest.raises(ImageError, match="dtype uint8"):
        predictor(np.zeros((40, 40, 3), np.float32))
