"""Checkpoints: saving and loading whole models, and the original layout for the original model."""

from dataclasses import replace

import golden
import keras_h5
import models
import numpy as np
import pytest

from benchmarks.seeded_weights import seed_weights
from maskrcnn.checkpoints.checkpoint import load_checkpoint, save_checkpoint, save_matterport
from maskrcnn.checkpoints.matterport_h5 import read_arrays, write_arrays
from maskrcnn.checkpoints.named_weights import HEAD_LAYERS, get_arrays
from maskrcnn.configuration.matterport import from_matterport
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.configuration.samples import DEMO
from maskrcnn.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    ConfigError,
)
from runtime.errors import OutputError

SMALL = from_matterport(golden.config_values(golden.load("infer_small_seed0")))


def equal(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def with_classes(config, count):
    return replace(config, model=replace(config.model, class_names=tuple(f"c{i}" for i in range(count))))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def own(folder):
    """The demo's checkpoint in our format."""
    path = folder / "demo.weights.h5"
    save_checkpoint(models.demo(), path)
    return path


@pytest.fixture(scope="module")
def bare(folder):
    """The demo's weights in matterport's format."""
    path = folder / "demo.h5"
    save_matterport(models.demo(), path)
    return path


def test_our_file_needs_no_configuration(own):
    model, report = load_checkpoint(own)
    assert model.config == DEMO
    assert equal(get_arrays(model), get_arrays(models.demo()))
    assert report.loaded == tuple(get_arrays(model))
    assert report.excluded == report.missing == report.leftover == ()


def test_a_given_configuration_wins(own):
    config = replace(DEMO, name="mine", detection=replace(DEMO.detection, min_score=0.125))
    model, _ = load_checkpoint(own, config)
    assert model.config == config


def test_a_loaded_model_detects_the_same(own):
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    window = np.array([[0, 0, 64, 64]], np.float32)
    loaded, _ = load_checkpoint(own)
    ours, theirs = (model.detect(images, window, 0.0, 0.3) for model in (models.demo(), loaded))
    assert int(ours["num_detections"][0]) > 0
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_matterport_files_need_a_configuration(bare):
    with pytest.raises(
        CheckpointMismatchError, match=r"demo\.h5 does not store a model configuration.*--config FILE\.json"
    ):
        load_checkpoint(bare)
    model, report = load_checkpoint(bare, DEMO)
    assert equal(get_arrays(model), get_arrays(models.demo()))
    assert len(report.loaded) == len(get_arrays(model))


def test_matterport_file_has_no_attributes_of_ours(bare):
    assert read_arrays(bare)[1].keys() == {"backend", "keras_version"}


LAYOUTS = {
    "inference": ("layer_names", None),
    "training": ("training_layer_names", None),
    "full model": ("training_layer_names", "model_weights"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_genuine_file_fills_the_model_by_name(tmp_path, layout):
    names, inside = LAYOUTS[layout]
    path, arrays = tmp_path / "mask_rcnn.h5", keras_h5.numbered_arrays()
    assert len(arrays) == 384
    keras_h5.write(path, arrays, keras_h5.MANIFEST[names], inside)
    model, report = load_checkpoint(path, SMALL)
    assert len(report.loaded) == 384
    assert report.missing == report.leftover == report.excluded == ()
    loaded = get_arrays(model)
    for (group, name), array in arrays.items():
        layer = name.split("/")[0] if group == "rpn_model" else group
        found = loaded[f"{layer}/{name.split('/')[-1].removesuffix(':0')}"]
        assert found.shape == array.shape
        assert found.flat[0] == found.flat[-1] == array.flat[0]  # every array has a different value
    path.unlink()


def test_our_layout_has_the_genuine_groups_names_and_shapes(tmp_path):
    import h5py

    path = tmp_path / "small.h5"
    save_matterport(models.small_model(), path)
    found = {}
    with h5py.File(path) as file:
        for group in file:
            names = [name.decode() for name in file[group].attrs["weight_names"]]
            found[group] = {name: list(file[group][name].shape) for name in names}
    assert found == keras_h5.MANIFEST["weights"]
    path.unlink()


def test_a_wrappers_inner_layer_name_does_not_matter(folder):
    # Some Keras versions name the weights of a wrapped layer after the layer inside.
    arrays = get_arrays(models.demo())
    path = folder / "wrapped.h5"
    groups = {}
    for key, array in arrays.items():
        layer, variable = key.split("/")
        group = "rpn_model" if layer.startswith("rpn_") else layer
        inner = layer if group == "rpn_model" else "conv2d_17"
        groups[group, f"{inner}/{variable}:0"] = array
    keras_h5.write(path, groups, list(dict.fromkeys(group for group, _ in groups)))
    assert equal(get_arrays(load_checkpoint(path, DEMO)[0]), arrays)


def test_another_number_of_classes(own):
    with pytest.raises(CheckpointMismatchError, match=r"trained for 4 classes .* has 7: .*--exclude-heads"):
        load_checkpoint(own, with_classes(DEMO, 7))


def test_exclude_heads_loads_the_rest(own):
    model, report = load_checkpoint(own, with_classes(DEMO, 7), exclude_heads=True)
    demo, loaded = get_arrays(models.demo()), get_arrays(model)
    heads = {key for key in demo if key.split("/")[0] in HEAD_LAYERS}
    assert set(report.excluded) == heads
    assert len(report.loaded) == len(demo) - 6
    assert equal({key: loaded[key] for key in report.loaded}, {key: demo[key] for key in report.loaded})
    assert loaded["mrcnn_class_logits/kernel"].shape == (128, 7)


def test_another_backbone_is_another_architecture(own):
    config = replace(DEMO, model=replace(DEMO.model, backbone="resnet50"))
    with pytest.raises(CheckpointMismatchError, match=r"another architecture: .*check 'backbone'"):
        load_checkpoint(own, config)


def test_another_width_names_a_layer_and_both_shapes(own):
    config = replace(DEMO, model=replace(DEMO.model, fpn_channels=32))
    with pytest.raises(CheckpointMismatchError, match=r"is \[.*\], the model needs \[.*\] \(\d+ arrays differ\)"):
        load_checkpoint(own, config)


def test_a_transposed_deconvolution_of_unequal_sides_is_refused(folder):
    config = replace(DEMO, model=replace(DEMO.model, mask_head_channels=32))
    arrays = get_arrays(models.demo())
    arrays["mrcnn_mask_deconv/kernel"] = arrays["mrcnn_mask_deconv/kernel"][..., :32]
    path = folder / "deconv.h5"
    write_arrays(path, arrays)
    with pytest.raises(CheckpointMismatchError):
        load_checkpoint(path, config)


def test_weights_that_are_not_finite(folder):
    arrays = get_arrays(models.demo())
    arrays["fpn_p3/bias"] = np.full_like(arrays["fpn_p3/bias"], np.nan)
    path = folder / "nan.h5"
    write_arrays(path, arrays)
    with pytest.raises(CheckpointMismatchError, match=r"nan\.h5: fpn_p3/bias has values that are not finite"):
        load_checkpoint(path, DEMO)


def test_a_stored_configuration_that_cannot_be_built(folder):
    path = folder / "future.h5"
    write_arrays(path, get_arrays(models.demo()), {"maskrcnn_config": '{"modle": {}}'})
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        load_checkpoint(path)


def test_a_damaged_file(own, tmp_path):
    content = bytearray(own.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "damaged.h5"
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=r"damaged\.h5 is"):
        load_checkpoint(path)


def test_errors_have_one_base_and_the_builtin_one(tmp_path):
    with pytest.raises(CheckpointNotFoundError) as caught:
        load_checkpoint(tmp_path / "absent.h5", DEMO)
    assert isinstance(caught.value, CheckpointError | FileNotFoundError)
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("save", [save_checkpoint, save_matterport])
def test_saving_replaces_only_when_asked(tmp_path, save):
    path = tmp_path / "kept.h5"
    path.write_text("kept")
    with pytest.raises(OutputError, match="already exists"):
        save(models.demo(), path)
    assert path.read_text() == "kept"
    save(models.demo(), path, overwrite=True)
    assert equal(read_arrays(path)[0], get_arrays(models.demo()))
    assert list(tmp_path.iterdir()) == [path]


def test_gains_scale_kernels_alone():
    from maskrcnn.model import MaskRCNN

    plain, scaled = MaskRCNN(DEMO), MaskRCNN(DEMO)
    seed_weights(plain, 1)
    seed_weights(scaled, 1, {"fpn_p2": 0.5})
    before, after = get_arrays(plain), get_arrays(scaled)
    assert [key for key in before if not np.array_equal(before[key], after[key])] == ["fpn_p2/kernel"]
    np.testing.assert_array_equal(after["fpn_p2/kernel"], before["fpn_p2/kernel"] * np.float32(0.5))


def test_a_single_class_model_survives(tmp_path):
    from maskrcnn.model import MaskRCNN

    config = replace(DEMO, model=replace(DEMO.model, class_names=("BG",)))
    assert config.model == ModelConfig(**{**vars(DEMO.model), "class_names": ("BG",)})
    model = MaskRCNN(config)
    save_checkpoint(model, tmp_path / "one.h5")
    assert equal(get_arrays(load_checkpoint(tmp_path / "one.h5")[0]), get_arrays(model))
