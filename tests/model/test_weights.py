"""Named weights: what is loaded, what is skipped, and that nothing is assigned if anything does not fit."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from maskrcnn.checkpoints.named_weights import HEAD_LAYERS, LoadReport, get_arrays, named_variables, set_arrays
from maskrcnn.configuration.samples import DEMO
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN


@pytest.fixture(scope="module")
def model():
    return MaskRCNN(DEMO)


@pytest.fixture
def arrays(model):
    """A full set that differs from the model's in every array."""
    return {key: array + np.float32(index + 1) for index, (key, array) in enumerate(get_arrays(model).items())}


def equal(model, arrays):
    ours = get_arrays(model)
    return ours.keys() == arrays.keys() and all(np.array_equal(ours[key], arrays[key]) for key in ours)


def refused(model, arrays, message, **options):
    """Check that the arrays are refused with a message and the model does not change."""
    before = get_arrays(model)
    with pytest.raises(CheckpointMismatchError, match=message):
        set_arrays(model, arrays, "w.h5", **options)
    assert equal(model, before)


def test_every_array_goes_to_its_variable(model, arrays):
    assert not equal(model, arrays)
    report = set_arrays(model, arrays, "w.h5")
    assert equal(model, arrays)
    assert report == LoadReport(tuple(arrays), (), (), ())
    assert str(report) == f"{len(arrays)} arrays loaded"


def test_names_are_layer_and_variable(model):
    names = list(named_variables(model))
    assert names[:2] == ["conv1/kernel", "conv1/bias"]
    assert names[2:6] == [f"bn_conv1/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    assert "rpn_conv_shared/kernel" in names
    assert names[-1] == "mrcnn_mask/bias"


def test_a_missing_array(model, arrays):
    del arrays["fpn_p2/bias"]
    refused(model, arrays, r"w\.h5 has another architecture: 1 arrays of the model are missing from it .*fpn_p2/bias")


def test_a_leftover_array(model, arrays):
    refused(model, arrays | {"res4z/kernel": np.zeros(3)}, r"1 of its arrays are not in .*such as res4z/kernel")


def test_partial_loading_reports_both(model, arrays):
    del arrays["fpn_p2/bias"], arrays["conv1/kernel"]
    before = get_arrays(model)
    report = set_arrays(model, arrays | {"extra/kernel": np.zeros(1)}, "w.h5", partial=True)
    assert report.missing == ("conv1/kernel", "fpn_p2/bias")
    assert report.leftover == ("extra/kernel",)
    assert len(report.loaded) == len(arrays)
    assert equal(model, arrays | {key: before[key] for key in report.missing})
    assert "2 missing (conv1/kernel, fpn_p2/bias), 1 leftover (extra/kernel)" in str(report)


def test_a_wrong_shape(model, arrays):
    arrays["fpn_p2/kernel"] = arrays["fpn_p2/kernel"][..., :1]
    refused(model, arrays, r"fpn_p2/kernel is \[3, 3, 64, 1\], the model needs \[3, 3, 64, 64\] \(1 arrays differ\)")


def test_equally_many_values_in_another_shape(model, arrays):
    arrays["mrcnn_bbox_fc/kernel"] = arrays["mrcnn_bbox_fc/kernel"].T
    refused(model, arrays, "mrcnn_bbox_fc/kernel")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite(model, arrays, value):
    arrays["mrcnn_mask/bias"][1] = value  # the last array: earlier ones must not be assigned either
    refused(model, arrays, "mrcnn_mask/bias has values that are not finite")


def other_classes(model, arrays, classes):
    for key in arrays:
        if key.split("/")[0] in HEAD_LAYERS:
            per_class = arrays[key].shape[-1] // model.config.model.num_classes
            shape = (*arrays[key].shape[:-1], per_class * classes)
            arrays[key] = np.full(shape, 0.5, np.float32)
    return arrays


def test_another_number_of_classes_names_both_and_the_way_out(model, arrays):
    message = r"trained for 81 classes \(with background\), the configuration has 4: .*--exclude-heads"
    refused(model, other_classes(model, arrays, 81), message)


def test_excluded_heads_stay_and_the_rest_is_loaded(model, arrays):
    before = get_arrays(model)
    report = set_arrays(model, other_classes(model, arrays, 81), "w.h5", exclude_heads=True)
    heads = {key for key in arrays if key.split("/")[0] in HEAD_LAYERS}
    assert len(heads) == 6
    assert set(report.excluded) == heads
    assert set(report.loaded) == set(arrays) - heads
    assert equal(model, arrays | {key: before[key] for key in heads})
    assert "6 excluded (" in str(report)


def test_heads_may_be_absent_when_they_are_excluded(model, arrays):
    rest = {key: array for key, array in arrays.items() if key.split("/")[0] not in HEAD_LAYERS}
    report = set_arrays(model, rest, "w.h5", exclude_heads=True)
    assert len(report.loaded) == len(rest)
    assert report.missing == report.leftover == ()


def test_excluding_heads_hides_no_other_fault(model, arrays):
    del arrays["conv1/bias"]
    refused(model, other_classes(model, arrays, 81), "such as conv1/bias", exclude_heads=True)


def test_a_backbone_layer_may_not_bear_the_name_of_one_of_ours():
    inputs = keras.Input((None, None, 3))
    x, features = inputs, []
    for name in ("a", "fpn_p2", "b", "c", "d"):
        x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name=name)(x)
        features.append(x)
    config = replace(DEMO, model=replace(DEMO.model, backbone="custom"))
    model = MaskRCNN(config, keras.Model(inputs, features[1:]))
    with pytest.raises(CheckpointMismatchError, match="two layers are called 'fpn_p2'"):
        named_variables(model)
