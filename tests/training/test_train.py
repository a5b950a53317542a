"""Whole runs with a cheap model: what they write, how they end, and how they resume."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace

import keras
import numpy as np
import pytest
import training_runs
from training_runs import Cheap, backbone, pictures, small

from maskrcnn.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.training import StageConfig
from maskrcnn.data.records import Dataset
from maskrcnn.errors import CheckpointFormatError, NonFiniteLossError, TrainingError
from maskrcnn.intermediates.activations import Activation
from maskrcnn.training import train as module
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.state import load_state, save_state
from maskrcnn.training.train import train

STAGES = (StageConfig("mrcnn_class.*", 1), StageConfig("mrcnn_.*", 2, 0.005))
MEAN = {"ema_momentum": 0.8, "schedule": "cosine", "gradient_accumulation": 2}


CONFIG = small(stages=STAGES, steps_per_epoch=4, **MEAN)


class Scores:
    """Stands in for `Evaluator`; the score of epoch n is the n-th of the list."""

    def __init__(self, values):
        self.values, self.asked = list(values), 0

    def __call__(self, network):
        return self

    def scores(self, dataset):
        self.asked += 1
        return {"segm_ap": self.values[self.asked - 1]}

    def drawn_detections(self, records):
        return [np.zeros((8, 8, 3), np.uint8) for _ in records]

    def activations(self, record):
        return [Activation("C2", np.zeros((4, 4, 2), np.float32))]


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(module, "TrainingModel", Cheap)
    monkeypatch.setattr(module, "Evaluator", Scores([0.1 * i for i in range(20)]))


def run(folder, config=CONFIG, resume=False, init=None, validation=None, augment=None, **options):
    settings = {"tensorboard": False, "verbose": 0, "build_backbone": backbone, **options}
    return train(
        config,
        pictures(),
        validation,
        output=folder,
        init=init,
        resume=resume,
        options=TrainOptions(**settings),
        augment=augment,
    )


def load(path):
    return load_checkpoint(path, backbone=backbone())


class StopAt(keras.callbacks.Callback):
    """Sends this process a signal after a step, counted over the run."""

    def __init__(self, step, number=signal.SIGTERM):
        super().__init__()
        self.step, self.number, self.seen = step, number, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            os.kill(os.getpid(), self.number)


class DieAt(keras.callbacks.Callback):
    """Ends the run after a step without saving, as a kill would."""

    def __init__(self, step):
        super().__init__()
        self.step, self.seen = step, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            raise MemoryError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state of an undisturbed run, and its folder."""
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "TrainingModel", Cheap)
    patch.setattr(module, "Evaluator", Scores([0.3, 0.5, 0.4]))
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = run(folder, validation=pictures(4, 1), keep=2)
    patch.undo()
    return result, folder


def assert_same_state(folder, other):
    found, expected = load_state(folder / "state.h5"), load_state(other / "state.h5")
    assert list(found.arrays) == list(expected.arrays)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)


def without_scores(history):
    return [{name: value for name, value in logs.items() if not name.startswith("val_")} for logs in history]


def test_a_run_writes_its_files(whole):
    result, folder = whole
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
        "config.json",
        "state.h5",
        "last.weights.h5",
        "best.weights.h5",
        "history.json",
        "epoch-0002.weights.h5",
        "epoch-0003.weights.h5",
    }
    assert (result.ended, result.best_epoch, result.best_score) == ("finished", 1, 0.5)
    assert json.loads((folder / "history.json").read_text()) == list(result.history)
    assert len(result.history) == 3
    assert set(result.history[0]) == {"loss", "gradient_norm", "val_loss", "val_gradient_norm", "val_segm_ap"}
    assert Config.from_json((folder / "config.json").read_text()) == CONFIG


def test_checkpoints_hold_the_mean_of_the_weights(whole):
    result, folder = whole
    state = load_state(folder / "state.h5")
    last = get_arrays(load(folder / "last.weights.h5")[0])
    best = get_arrays(load(folder / "best.weights.h5")[0])
    second = get_arrays(load(folder / "epoch-0002.weights.h5")[0])
    for name, array in state.part("mean").items():
        np.testing.assert_array_equal(last[name], array)
        np.testing.assert_array_equal(best[name], second[name])
        np.testing.assert_array_equal(get_arrays(result.network)[name], array)
    name = "mrcnn_class_conv1/kernel"
    assert np.abs(state.part("network")[name] - last[name]).max() > 1e-6
    assert np.abs(best[name] - last[name]).max() > 1e-6


def test_only_the_layers_of_a_phase_change(whole, tmp_path):
    result = run(tmp_path / "run", small(stages=STAGES[:1], steps_per_epoch=1))
    fresh = run(tmp_path / "other", small(stages=(StageConfig("mrcnn_mask", 1),), steps_per_epoch=1)).network
    moved = {k.split("/")[0] for k, v in get_arrays(result.network).items() if np.any(get_arrays(fresh)[k] != v)}
    assert moved >= {"mrcnn_class_conv1", "mrcnn_class_logits", "mrcnn_mask"}
    assert not any(name.startswith(("own", "fpn", "mrcnn_bbox", "mrcnn_mask_")) for name in moved)


@pytest.mark.parametrize("step", [1, 4, 6, 12])
def test_an_interrupted_run_ends_like_an_undisturbed_one(whole, tmp_path, step):
    folder = tmp_path / "run"
    first = run(folder, callbacks=(StopAt(step),))
    assert (first.ended, first.signal) == ("interrupted", signal.SIGTERM)
    assert load_state(folder / "state.h5").facts["counters"]["step"] == step
    assert len(first.history) == (step - 1) // 4 if step % 4 else len(first.history) == step // 4 - 1
    second = run(folder, resume=True)
    assert second.ended == "finished"
    assert_same_state(folder, whole[1])
    assert without_scores(second.history) == without_scores(whole[0].history)


def test_a_killed_run_repeats_the_steps_that_were_not_saved(whole, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(MemoryError):
        run(folder, state_steps=3, callbacks=(DieAt(8),))
    assert load_state(folder / "state.h5").facts["counters"]["step"] == 6
    with pytest.raises(MemoryError):
        run(folder, resume=True, callbacks=(DieAt(1),))
    run(folder, resume="auto")
    assert_same_state(folder, whole[1])


def test_losing_the_optimizer_would_be_noticed(whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run(folder, callbacks=(StopAt(6),))
    monkeypatch.setattr("maskrcnn.training.phases.restore_optimizer", lambda run, state: None)
    run(folder, resume=True)
    with pytest.raises(AssertionError):
        assert_same_state(folder, whole[1])


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_is_not_caught(tmp_path):
    class Twice(StopAt):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            super().on_train_batch_end(batch, logs)
            self.seen -= 1
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", callbacks=(Twice(1, signal.SIGINT),))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_has_nothing_left_to_do(whole):
    result = run(whole[1], resume=True, validation=pictures(4, 1))
    assert (result.ended, result.history) == ("finished", whole[0].history)


def test_early_stopping_counts_over_a_resume(tmp_path, monkeypatch):
    config = small(stages=(StageConfig("mrcnn_mask", 9),), steps_per_epoch=2)
    monkeypatch.setattr(module, "Evaluator", Scores([0.2, 0.5, 0.4]))
    run(tmp_path / "run", config, validation=pictures(4, 1), patience=2, callbacks=(StopAt(5),))
    monkeypatch.setattr(module, "Evaluator", Scores([0.4, 0.5, 0.9]))
    result = run(tmp_path / "run", config, True, validation=pictures(4, 1), patience=2)
    assert (result.ended, len(result.history), result.best_epoch) == ("early stopping", 4, 1)
    again = run(tmp_path / "run", config, True, validation=pictures(4, 1), patience=2)
    assert (again.ended, len(again.history)) == ("early stopping", 4)


def test_scores_come_at_intervals_and_after_the_last_epoch(tmp_path, monkeypatch):
    scores = Scores([0.1, 0.2, 0.3])
    monkeypatch.setattr(module, "Evaluator", scores)
    config = small(stages=(StageConfig("mrcnn_mask", 5),), steps_per_epoch=1, validation_steps=0)
    result = run(tmp_path / "run", config, validation=pictures(4, 1), evaluate_every=2)
    assert [logs.get("val_segm_ap") for logs in result.history] == [None, 0.1, None, 0.2, 0.3]


def test_without_scores_the_validation_loss_decides(tmp_path):
    config = small(stages=(StageConfig("mrcnn_mask", 2),), steps_per_epoch=2)
    result = run(tmp_path / "run", config, validation=pictures(4, 1), evaluate_every=0)
    losses = [logs["val_loss"] for logs in result.history]
    assert result.best_score == -min(losses)
    assert losses[0] > losses[1]  # the cheap model learns the brightness
    assert result.best_epoch == 1


class Poison(keras.callbacks.Callback):
    """Makes a weight NaN before a step."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            self.model.network.mask_head.get_layer("mrcnn_mask").bias.assign([np.nan] * 4)


def test_a_loss_that_is_not_finite_names_the_images(tmp_path):
    config = small(stages=(StageConfig("mrcnn_mask", 1),), steps_per_epoch=4)
    ids = []
    with pytest.raises(NonFiniteLossError, match=r"^step 3: gradient_norm is nan, loss is nan; the images") as error:
        run(tmp_path / "run", config, state_steps=1, callbacks=(Poison(), ids_of(ids)))
    assert f"the images were {', '.join(str(i) for i in ids[2])}." in str(error.value)
    state = load_state(tmp_path / "run" / "state.h5")
    assert state.facts["counters"]["step"] == 2
    assert all(np.isfinite(array).all() for array in state.arrays.values())


def ids_of(found):
    """A callback that records the images of each step from the plan of an equal run."""
    from maskrcnn.data.batches import BatchPlan

    plan = BatchPlan(pictures(), 2, 0)
    found += [plan.image_ids(step) for step in range(4)]
    return keras.callbacks.Callback()


def test_a_folder_with_a_run_is_not_overwritten(whole):
    with pytest.raises(TrainingError, match=r"already holds a run.*--resume"):
        run(whole[1])


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(TrainingError, match="no run to resume"):
        run(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_balanced_sampling_and_coarse_masks_are_said_and_annotations_belong_to_the_run(tmp_path):
    said = []
    config = small(stages=(StageConfig("mrcnn_mask", 1),), steps_per_epoch=2, repeat_threshold=1.0)
    config = replace(config, model=replace(config.model, mask_head_deconvolutions=2))
    run(tmp_path / "run", config, progress=said.append)
    assert any(
        re.fullmatch(r"balanced sampling: .* times as often, \d+ images per pass instead of 6", line) for line in said
    )
    assert any(
        "masks of 56 x 56, coarse for targets of 56 x 56: training.mini_mask_size=[112,112]" in line for line in said
    )
    other = replace(
        pictures(), records=tuple(replace(each, instances=each.load_instances()[:1]) for each in pictures().records)
    )
    with pytest.raises(TrainingError, match=r"the run was started with images\.training '6 images, .*, visits "):
        train(config, other, output=tmp_path / "run", resume=True, options=TrainOptions(build_backbone=backbone))


def test_a_class_weight_that_was_taken_away_is_named(whole, tmp_path):
    """Also what only the stored configuration has is compared."""
    folder = tmp_path / "run"
    shutil.copytree(whole[1], folder)
    state = load_state(folder / "state.h5")
    state.facts["config"]["training"]["class_weights"] = {"circle": 2.0}
    save_state(folder / "state.h5", state)
    with pytest.raises(TrainingError, match=r"config\.training\.class_weights\.circle 2\.0, but now it is None"):
        run(folder, resume=True, validation=pictures(4, 1))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"learning_rate": 0.02}, "config.training.learning_rate 0.01, but now it is 0.02"),
        ({"ema_momentum": None}, "config.training.ema_momentum 0.8"),
        ({"batch_size": 3}, "config.training.batch_size 2"),
        ({"class_weights": {"circle": 2.0}}, "config.training.class_weights.circle None, but now it is 2.0"),
        ({"repeat_threshold": 0.5}, "config.training.repeat_threshold 0.0, but now it is 0.5"),
        ({"stages": STAGES[:1]}, "config.training.stages"),
    ],
)
def test_another_configuration_is_named(whole, change, field):
    config = replace(CONFIG, training=replace(CONFIG.training, **change))
    with pytest.raises(TrainingError) as error:
        run(whole[1], config, resume=True, validation=pictures(4, 1))
    assert field in str(error.value)


def test_a_state_leaves_out_settings_that_its_version_did_not_know(whole, tmp_path):
    folder = shutil.copytree(whole[1], tmp_path / "run")
    state = load_state(folder / "state.h5")
    training = state.facts["config"]["training"]
    del training["smooth_l1_beta"]
    save_state(folder / "state.h5", state)
    assert run(folder, resume=True, validation=pictures(4, 1)).ended == "finished"
    training["smooth_l1_beta"] = 0.5  # and now has its default, which files leave out
    save_state(folder / "state.h5", state)
    with pytest.raises(TrainingError, match=r"config.training.smooth_l1_beta 0.5, but now it is 1.0"):
        run(folder, resume=True, validation=pictures(4, 1))


def test_another_augmentation_is_noticed(whole):
    def mine(image, boxes, masks):
        return image, boxes, masks

    with pytest.raises(TrainingError, match=r"with augmentation None, but now it is '.*mine'"):
        run(whole[1], resume=True, validation=pictures(4, 1), augment=mine)


def test_other_pictures_are_noticed(whole):
    with pytest.raises(TrainingError, match=r"images.validation '4 images"):
        run(whole[1], resume=True, validation=pictures(5, 1))


def test_a_damaged_state_is_noticed(whole, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    content = bytearray((whole[1] / "state.h5").read_bytes())
    array = load_state(whole[1] / "state.h5").arrays["network/mrcnn_mask/kernel"]
    content[content.index(array.tobytes()) + 5] ^= 1
    (folder / "state.h5").write_bytes(content)
    with pytest.raises(CheckpointFormatError, match="damaged"):
        run(folder, resume=True)


def test_classes_are_those_of_the_pictures(tmp_path):
    dataset = pictures()
    renamed = Dataset("other", ("BG", "a", "b", "c"), dataset.records)
    config = small(stages=(StageConfig("mrcnn_mask", 1),), steps_per_epoch=1)
    options = TrainOptions(tensorboard=False, verbose=0, build_backbone=backbone)
    result = train(config, renamed, output=tmp_path / "run", options=options)
    assert result.network.config.model.class_names == ("BG", "a", "b", "c")
    turned = Dataset("turned", ("BG", "triangle", "circle", "square"), dataset.records)
    result = train(config, turned, output=tmp_path / "turned", options=options)
    assert result.network.config.model.class_names == training_runs.TINY.model.class_names


def test_a_warmup_that_is_too_long_is_said(tmp_path):
    messages = []
    config = small(stages=(StageConfig("mrcnn_mask", 1),), steps_per_epoch=2, warmup_steps=100, validation_steps=0)
    assert run(tmp_path / "run", config, progress=messages.append).ended == "finished"
    assert messages[0] == "training phase 1 has 2 steps, no more than warmup_steps (100): it warms up for no step"


def test_starts_from_a_checkpoint(whole, tmp_path):
    config = small(stages=(StageConfig("mrcnn_mask", 1),), steps_per_epoch=1)
    messages = []
    result = run(tmp_path / "run", config, init=whole[1] / "best.weights.h5", progress=messages.append)
    expected = get_arrays(load(whole[1] / "best.weights.h5")[0])
    for name, array in get_arrays(result.network).items():
        assert np.array_equal(array, expected[name]) == (not name.startswith("mrcnn_mask/")), name
    assert "74 arrays loaded" in messages[0]


def test_tensorboard_gets_every_curve(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = small(stages=STAGES, steps_per_epoch=2)
    run(tmp_path / "run", config, validation=pictures(4, 1), tensorboard=True, log_steps=1)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    assert {"train/loss", "train/learning_rate", "train/gradient_norm", "validation/segm_ap", "epoch/loss"} <= tags
    assert {"predictions/0", "predictions/3", "own4/kernel", "mrcnn_class_bn1/gamma"} <= tags
    assert "activations/C2" in tags
    assert [event.step for event in events.Tensors("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Tensors("validation/segm_ap")] == [2, 4, 6]
    rates = [
        float(np.frombuffer(e.tensor_proto.tensor_content, np.float32)[0])
        for e in events.Tensors("train/learning_rate")
    ]
    assert rates == [np.float32(0.01)] * 2 + [np.float32(0.005)] * 4


def test_the_checkpoint_of_a_run_is_an_ordinary_one(whole, tmp_path):
    network, report = load(whole[1] / "last.weights.h5")
    assert report.missing == ()
    save_checkpoint(network, tmp_path / "copy.weights.h5")
