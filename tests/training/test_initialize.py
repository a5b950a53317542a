"""Initial weights of a training run."""

import math
from dataclasses import replace

import h5py
import keras
import models
import numpy as np
import pytest
import training_runs

from maskrcnn.checkpoints.architecture import described, shown_settings
from maskrcnn.checkpoints.checkpoint import load_checkpoint, save_checkpoint, save_matterport
from maskrcnn.checkpoints.named_weights import HEAD_LAYERS, get_arrays
from maskrcnn.configuration.samples import sample_config
from maskrcnn.errors import CheckpointMismatchError, CheckpointNotFoundError, TrainingError
from maskrcnn.model import MaskRCNN
from maskrcnn.training.fresh import fresh_weights
from maskrcnn.training.initialize import initialize


def build(**model):
    return MaskRCNN(replace(training_runs.TINY, model=replace(training_runs.TINY.model, **model)))


@pytest.fixture(scope="module")
def network():
    network = build()
    fresh_weights(network, 5)
    return network


@pytest.fixture(scope="module")
def resnet50():
    return build(backbone="resnet50", backbone_width=64)


def is_head(key):
    return key.split("/")[0] in HEAD_LAYERS


def assert_equal_arrays(network, other):
    arrays, expected = get_arrays(network), get_arrays(other)
    assert arrays.keys() == expected.keys()
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, expected[key])


def test_fresh_weights_follow_from_the_seed(network):
    again, other = build(), build()
    fresh_weights(again, 5)
    fresh_weights(other, 6)
    ours, same, others = get_arrays(network), get_arrays(again), get_arrays(other)
    for key, array in ours.items():
        np.testing.assert_array_equal(array, same[key])
        if key.endswith("kernel"):
            assert np.abs(array - others[key]).max() > 0


def test_equal_shapes_get_different_weights(network):
    arrays = get_arrays(network)
    assert np.abs(arrays["mrcnn_mask_conv1/kernel"] - arrays["mrcnn_mask_conv2/kernel"]).max() > 0.01


@pytest.mark.parametrize(
    ("layer", "deviation"),
    [
        ("conv1", math.sqrt(2 / (7 * 7 * 3))),
        ("res5b_branch2a", math.sqrt(2 / (9 * 64))),
        ("fpn_p2", math.sqrt(1 / (9 * 16))),
        ("mrcnn_class_conv1", math.sqrt(2 / (49 * 16))),
        ("mrcnn_mask_deconv", math.sqrt(2 / 16)),
        ("rpn_class_raw", 0.01),
        ("mrcnn_bbox_fc", 0.001),
    ],
)
def test_deviations(network, layer, deviation):
    kernel = get_arrays(network)[f"{layer}/kernel"]
    assert kernel.std() == pytest.approx(deviation, rel=4 / math.sqrt(2 * kernel.size))
    assert abs(kernel.mean()) < 4 * deviation / math.sqrt(kernel.size)


def test_first_guess_of_the_classes_is_the_drawn_share(network):
    bias = get_arrays(network)["mrcnn_class_logits/bias"].astype(float)
    shares = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(shares, [0.67, 0.11, 0.11, 0.11], rtol=1e-5)


@pytest.mark.parametrize("train_batch_norm", [False, None])
def test_fresh_features_neither_vanish_nor_explode(train_batch_norm):
    network = MaskRCNN(training_runs.tiny(train_batch_norm=train_batch_norm))
    fresh_weights(network, 0)
    images = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    for level in network.backbone(network.mold(images), training=train_batch_norm is None):
        assert 0.1 < float(np.std(level)) < 30


def test_no_source_leaves_all_fresh(network):
    other = build()
    for source in (None, "none"):
        report = initialize(other, source, seed=5)
        assert (report.loaded, len(report.missing)) == ((), len(get_arrays(other)))
    assert_equal_arrays(other, network)


@pytest.mark.parametrize("save", [save_checkpoint, save_matterport])
def test_checkpoint_of_the_same_classes_is_taken_whole(network, tmp_path, save):
    save(network, tmp_path / "a.weights.h5")
    other = build()
    report = initialize(other, tmp_path / "a.weights.h5", seed=1)
    assert len(report.loaded) == len(get_arrays(network))
    assert_equal_arrays(other, network)


@pytest.mark.parametrize("save", [save_checkpoint, save_matterport])
def test_heads_of_another_number_of_classes_stay_fresh(network, tmp_path, save):
    save(network, tmp_path / "a.weights.h5")
    other, fresh = build(class_names=("BG", "cell")), build(class_names=("BG", "cell"))
    report = initialize(other, tmp_path / "a.weights.h5", seed=1)
    fresh_weights(fresh, 1)
    heads, others = get_arrays(fresh), get_arrays(network)
    assert set(report.excluded) == {key for key in others if is_head(key)}
    for key, array in get_arrays(other).items():
        np.testing.assert_array_equal(array, (heads if is_head(key) else others)[key])


def test_heads_of_other_classes_stay_fresh_though_as_many(network, tmp_path):
    save_checkpoint(network, tmp_path / "a.weights.h5")
    other = build(class_names=("BG", "dog", "cat", "cow"))
    assert len(initialize(other, tmp_path / "a.weights.h5").excluded) == 6
    assert initialize(other, tmp_path / "a.weights.h5", exclude_heads=False).excluded == ()


def test_the_demo_starts_a_small_network():
    other = MaskRCNN(sample_config("small", ("BG", "droplet")))
    report = initialize(other, "demo", seed=1)
    assert len(report.excluded) == 6
    expected = get_arrays(models.demo())
    for key, array in get_arrays(other).items():
        assert is_head(key) or np.array_equal(array, expected[key])


@pytest.mark.parametrize("save", [save_checkpoint, save_matterport])
def test_a_second_transposed_convolution_starts_with_the_masks_of_the_file(network, tmp_path, save):
    save(network, tmp_path / "a.weights.h5")
    finer = build(mask_head_deconvolutions=2)
    report = initialize(finer, tmp_path / "a.weights.h5", seed=1)
    assert report.excluded == ("mrcnn_mask_deconv2/bias", "mrcnn_mask_deconv2/kernel")
    crops = np.random.default_rng(0).normal(size=(3, 14, 14, 16)).astype(np.float32)
    coarse, fine = network.mask_head(crops).numpy(), finer.mask_head(crops).numpy()
    assert fine.shape == (3, 56, 56, 4)
    np.testing.assert_allclose(fine, coarse.repeat(2, axis=1).repeat(2, axis=2), rtol=0, atol=1e-6)
    variable = finer.mask_head.get_layer("mrcnn_mask_deconv2").bias
    variable.assign(np.arange(16.0))
    save(finer, tmp_path / "b.weights.h5")
    again = build(mask_head_deconvolutions=2)
    assert initialize(again, tmp_path / "b.weights.h5").excluded == ()  # a file that has the layer gives it
    assert_equal_arrays(again, finer)
    with pytest.raises(CheckpointMismatchError, match=r"2 of its arrays are not .*check 'mask_head_deconvolutions' in"):
        initialize(build(), tmp_path / "b.weights.h5")
    with pytest.raises(CheckpointMismatchError, match=r"2 arrays of the .*check 'mask_head_deconvolutions' in the con"):
        load_checkpoint(tmp_path / "a.weights.h5", finer.config)
    settings = shown_settings({key: array.shape for key, array in get_arrays(finer).items()})
    assert settings["mask_head_deconvolutions"] == 2
    assert described(settings).endswith("mask_head_deconvolutions 2)")


def test_another_architecture_is_refused(network, tmp_path):
    save_checkpoint(network, tmp_path / "a.weights.h5")
    with pytest.raises(CheckpointMismatchError, match="another architecture"):
        initialize(build(backbone="resnet50"), tmp_path / "a.weights.h5")
    with pytest.raises(CheckpointNotFoundError):
        initialize(network, tmp_path / "none.h5")


@pytest.fixture(scope="module")
def classifier():
    """Keras' ResNet-50 with weights of all kinds."""
    model = keras.applications.ResNet50(include_top=False, weights=None)
    for index, variable in enumerate(model.variables):
        variable.assign(np.random.default_rng(index).normal(size=variable.shape) * 0.05)
    for layer in model.layers:  # variances cannot be negative
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.abs(layer.moving_variance.numpy()) + 0.5)
            layer.gamma.assign(np.abs(layer.gamma.numpy()) + 0.5)
    return model


@pytest.fixture(scope="module")
def classifier_file(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier") / "resnet50.h5"
    classifier.save(path)
    return path


@pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning", "ignore:Exception encountered:UserWarning")
def test_keras_classifier_computes_the_same_features(resnet50, classifier, classifier_file):
    report = initialize(resnet50, classifier_file)
    assert len(report.loaded) == 318
    assert report.leftover == ()
    assert all(key.startswith(("fpn_", "rpn_", "mrcnn_")) for key in report.missing)
    rgb = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    molded = rgb - np.array([123.68, 116.779, 103.939], np.float32)
    prepared = keras.applications.resnet.preprocess_input(rgb.copy())
    ours, theirs = resnet50.backbone, classifier
    # In two halves, because Keras' pooling between them pads both sides; matterport's and ours pad one.
    pool = next(layer for layer in ours.layers if isinstance(layer, keras.layers.MaxPooling2D))
    before, after = (theirs.get_layer(name).output for name in ("conv1_relu", "pool1_pool"))
    stem, their_stem = keras.Model(ours.inputs, pool.input), keras.Model(theirs.inputs, before)
    rest, their_rest = keras.Model(pool.output, ours.outputs[3]), keras.Model(after, theirs.output)
    # The epsilons, 1e-3 and 1e-5, are added to variances of 0.5 and more; the difference grows layer by layer.
    np.testing.assert_allclose(stem(molded), their_stem(prepared), rtol=2e-3, atol=1e-3)
    pooled = np.abs(np.random.default_rng(1).normal(size=(1, 16, 16, 64))).astype(np.float32)
    features, their_features = rest(pooled).numpy(), their_rest(pooled).numpy()
    assert np.abs(features - their_features).max() < 0.02 * their_features.max()


def old_file(path, model, prefixed):
    """Rename the arrays as in the files of 2017 or (prefixed) of 2015."""
    branch = {"0": "branch1", "1": "branch2a", "2": "branch2b", "3": "branch2c"}
    short = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}
    with h5py.File(path, "w") as file:
        for layer in model.layers:
            if not layer.variables:
                continue
            words = layer.name.split("_")
            if words[0] == "conv1":
                name = "conv1" if words[1] == "conv" else "bn_conv1"
            else:
                kind = "res" if words[3] == "conv" else "bn"
                name = f"{kind}{words[0][4]}{'abcdef'[int(words[1][5:]) - 1]}_{branch[words[2]]}"
            group, names = file.create_group(name), []
            for variable in layer.variables:
                tail = f"{name}_{short.get(variable.name, variable.name)}" if prefixed else f"{name}/{variable.name}"
                names.append(f"{tail}:0")
                group.create_dataset(names[-1], data=variable.numpy())
            group.attrs["weight_names"] = np.array([name.encode() for name in names])


@pytest.mark.parametrize("prefixed", [True, False])
def test_old_names_give_the_same_as_new_ones(resnet50, tmp_path, classifier, classifier_file, prefixed):
    initialize(resnet50, classifier_file)
    expected = get_arrays(resnet50)
    old_file(tmp_path / "old.h5", classifier, prefixed)
    assert len(initialize(resnet50, tmp_path / "old.h5").loaded) == 318
    for key, array in get_arrays(resnet50).items():
        np.testing.assert_array_equal(array, expected[key])


def test_gray_pictures_leave_the_first_kernel_fresh(classifier_file):
    network = build(backbone="resnet50", backbone_width=64, image_channels=1, mean_pixel=(100,))
    report = initialize(network, classifier_file)
    assert "conv1/kernel" in report.missing
    assert len(report.loaded) == 317


def test_imagenet_is_for_backbones_that_have_it(network):
    with pytest.raises(TrainingError, match="'resnet18': use resnet50 or resnet101"):
        initialize(network, "imagenet")


def test_imagenet_that_cannot_be_had_says_what_to_do(resnet50, monkeypatch):
    def unreachable(**_):
        raise Exception("URL fetch failure on ...: no route")  # noqa: TRY002 - as Keras does

    monkeypatch.setattr(keras.applications, "ResNet50", unreachable)
    with pytest.raises(TrainingError, match=r"no route.*'notop' weight file"):
        initialize(resnet50, "imagenet")


def test_a_backbone_of_the_users_own_keeps_its_weights():
    images = keras.Input((None, None, 3))
    levels = [keras.layers.Conv2D(8, 3, s, "same", name=f"own{s}")(images) for s in (4, 8, 16, 32)]
    backbone = keras.Model(images, levels)
    config = replace(training_runs.TINY, model=replace(training_runs.TINY.model, backbone="custom"))
    network = MaskRCNN(config, backbone)
    before = [variable.numpy() for variable in backbone.variables]
    fresh_weights(network, 0)
    for array, variable in zip(before, backbone.variables, strict=True):
        np.testing.assert_array_equal(array, variable.numpy())
    assert get_arrays(network)["fpn_p2/kernel"].std() == pytest.approx(math.sqrt(1 / 144), rel=0.1)
