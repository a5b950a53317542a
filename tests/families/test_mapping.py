"""Names and layouts of other programs' weights, on networks so narrow that a test takes no time."""

from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.checkpoints.families import detectron2, mapping, mmdetection, torchvision
from maskrcnn.checkpoints.families.mapping import Row, load_state, state_of
from maskrcnn.checkpoints.named_weights import get_arrays
from maskrcnn.configuration.model import Config, ModelConfig
from maskrcnn.errors import CheckpointMismatchError, ConfigError
from maskrcnn.model import MaskRCNN

NARROW = {
    "class_names": ("BG", "a", "b"),
    "backbone_width": 4,
    "fpn_channels": 3,
    "rpn_channels": 5,
    "box_head_channels": 6,
    "mask_head_channels": 7,
    "box_pool_size": 2,
    "mask_pool_size": 2,
    "backbone": "resnet18",
    "backbone_padding": "symmetric",
    "backbone_shortcut": "identity",
    "bias_before_batch_norm": False,
    "head_batch_norm": False,
    "objectness": "sigmoid",
}
VERSION_2 = {
    "head_batch_norm": True,
    "fpn_batch_norm": True,
    "rpn_convolutions": 2,
    "box_head_convolutions": 4,
    "box_head_layers": 1,
}
PROGRAMS = {
    "torchvision": (torchvision, {}, {}),
    "torchvision 2": (torchvision, VERSION_2, {}),
    "detectron2": (detectron2, {}, {}),
    "mmdetection": (mmdetection, {}, {}),
    "mmdetection caffe": (mmdetection, {}, {"bgr": True}),
}


@cache
def network(version=1):
    """Shared: each test loads the weights that it needs."""
    return MaskRCNN(Config(model=ModelConfig(**NARROW | (VERSION_2 if version == 2 else {}))))


@pytest.fixture(scope="module", params=PROGRAMS)
def case(request):
    """A narrow network of each program, its table, and random weights by the program's names."""
    program, changes, options = PROGRAMS[request.param]
    model = network(2 if changes else 1)
    table = program.table(model.config.model, **options)
    generator = np.random.default_rng(0)
    state = {
        key: generator.uniform(0.5, 1.5, array.shape).astype(np.float32)
        for key, array in state_of(model, table).items()
    }
    return model, table, state


def loaded(model, table, state):
    load_state(model, state, table, "mine.pth")
    return {key: variable.numpy() for key, variable in mapping.named_variables(model).items()}


def test_all_arrays_go_in_and_come_back(case):
    model, table, state = case
    report = load_state(model, state, table, "mine.pth")
    assert not [*report.missing, *report.leftover, *report.excluded]
    back = state_of(model, table)
    assert list(back) == list(state)
    assert all(np.array_equal(back[key], array) for key, array in state.items())
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in back.values())


def test_names_of_torchvision(case):
    model, table, state = case
    if table.title != "torchvision":
        pytest.skip("other names")
    arrays = loaded(model, table, state)
    pairs = {
        "conv1/kernel": "backbone.body.conv1.weight",
        "bn_conv1/moving_variance": "backbone.body.bn1.running_var",
        "res2a_branch2a/kernel": "backbone.body.layer1.0.conv1.weight",
        "bn2b_branch2b/beta": "backbone.body.layer1.1.bn2.bias",
        "res5a_branch1/kernel": "backbone.body.layer4.0.downsample.0.weight",
        "bn5a_branch1/gamma": "backbone.body.layer4.0.downsample.1.weight",
        "fpn_c2p2/kernel": "backbone.fpn.inner_blocks.0.0.weight",
        "fpn_p5/kernel": "backbone.fpn.layer_blocks.3.0.weight",
        "rpn_conv_shared/kernel": "rpn.head.conv.0.0.weight",
        "rpn_class_raw/kernel": "rpn.head.cls_logits.weight",
        "mrcnn_mask_conv4/kernel": "roi_heads.mask_head.3.0.weight",
        "mrcnn_mask_deconv/kernel": "roi_heads.mask_predictor.conv5_mask.weight",
        "mrcnn_mask/bias": "roi_heads.mask_predictor.mask_fcn_logits.bias",
        "mrcnn_class_logits/bias": "roi_heads.box_predictor.cls_score.bias",
    }
    if model.config.model.fpn_batch_norm:
        pairs |= {
            "fpn_c2p2_bn/gamma": "backbone.fpn.inner_blocks.0.1.weight",
            "rpn_conv_shared2/bias": "rpn.head.conv.1.0.bias",
            "mrcnn_box_conv4/kernel": "roi_heads.box_head.3.0.weight",
            "mrcnn_box_bn4/moving_mean": "roi_heads.box_head.3.1.running_mean",
            "mrcnn_class_conv1/bias": "roi_heads.box_head.5.bias",
            "mrcnn_mask_bn1/beta": "roi_heads.mask_head.0.1.bias",
        }
    else:
        pairs |= {"fpn_p2/bias": "backbone.fpn.layer_blocks.0.0.bias"}
        pairs |= {f"mrcnn_class_conv{i}/bias": f"roi_heads.box_head.fc{i + 5}.bias" for i in (1, 2)}
    for ours, theirs in pairs.items():
        expected = state[theirs] if state[theirs].ndim == 1 else state[theirs].transpose(2, 3, 1, 0)
        assert np.array_equal(arrays[ours], expected), ours


def test_old_names_of_torchvision():
    """Of files from before the modules had version 2."""
    model = network()
    table = torchvision.table(model.config.model)
    state = state_of(model, table)
    renamed = {}
    for key, array in state.items():
        old = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for place in range(4):
            for kind in ("inner", "layer"):
                old = old.replace(f"{kind}_blocks.{place}.0.", f"{kind}_blocks.{place}.")
            old = old.replace(f"mask_head.{place}.0.", f"mask_head.mask_fcn{place + 1}.")
        renamed[old] = array
    assert len(renamed.keys() - state.keys()) == 2 * (8 + 1 + 4)
    load_state(model, renamed, table, "old.pth")
    assert all(np.array_equal(array, state[key]) for key, array in state_of(model, table).items())


NAMES = {
    "Detectron2": {
        "conv1/kernel": "backbone.bottom_up.stem.conv1.weight",
        "bn_conv1/moving_mean": "backbone.bottom_up.stem.conv1.norm.running_mean",
        "res2b_branch2a/kernel": "backbone.bottom_up.res2.1.conv1.weight",
        "bn3a_branch2b/gamma": "backbone.bottom_up.res3.0.conv2.norm.weight",
        "bn4a_branch1/beta": "backbone.bottom_up.res4.0.shortcut.norm.bias",
        "fpn_c3p3/bias": "backbone.fpn_lateral3.bias",
        "fpn_p4/kernel": "backbone.fpn_output4.weight",
        "rpn_conv_shared/bias": "proposal_generator.rpn_head.conv.bias",
        "rpn_class_raw/bias": "proposal_generator.rpn_head.objectness_logits.bias",
        "rpn_bbox_pred/bias": "proposal_generator.rpn_head.anchor_deltas.bias",
        "mrcnn_class_conv1/kernel": "roi_heads.box_head.fc1.weight",
        "mrcnn_class_conv2/bias": "roi_heads.box_head.fc2.bias",
        "mrcnn_class_logits/kernel": "roi_heads.box_predictor.cls_score.weight",
        "mrcnn_bbox_fc/bias": "roi_heads.box_predictor.bbox_pred.bias",
        "mrcnn_mask_conv1/kernel": "roi_heads.mask_head.mask_fcn1.weight",
        "mrcnn_mask_deconv/kernel": "roi_heads.mask_head.deconv.weight",
        "mrcnn_mask/kernel": "roi_heads.mask_head.predictor.weight",
    },
    "MMDetection": {
        "conv1/kernel": "backbone.conv1.weight",
        "bn_conv1/moving_mean": "backbone.bn1.running_mean",
        "res2b_branch2a/kernel": "backbone.layer1.1.conv1.weight",
        "bn3a_branch2b/gamma": "backbone.layer2.0.bn2.weight",
        "bn4a_branch1/beta": "backbone.layer3.0.downsample.1.bias",
        "fpn_c3p3/bias": "neck.lateral_convs.1.conv.bias",
        "fpn_p4/kernel": "neck.fpn_convs.2.conv.weight",
        "rpn_conv_shared/bias": "rpn_head.rpn_conv.bias",
        "rpn_class_raw/bias": "rpn_head.rpn_cls.bias",
        "rpn_bbox_pred/bias": "rpn_head.rpn_reg.bias",
        "mrcnn_class_conv1/kernel": "roi_head.bbox_head.shared_fcs.0.weight",
        "mrcnn_class_conv2/bias": "roi_head.bbox_head.shared_fcs.1.bias",
        "mrcnn_class_logits/kernel": "roi_head.bbox_head.fc_cls.weight",
        "mrcnn_bbox_fc/bias": "roi_head.bbox_head.fc_reg.bias",
        "mrcnn_mask_conv1/kernel": "roi_head.mask_head.convs.0.conv.weight",
        "mrcnn_mask_deconv/kernel": "roi_head.mask_head.upsample.weight",
        "mrcnn_mask/kernel": "roi_head.mask_head.conv_logits.weight",
    },
}


def test_values_of_programs_without_a_background_box(case):
    """Detectron2 and MMDetection: background last, deltas and masks of objects alone; here, zeros stand in."""
    model, table, state = case
    if table.title not in NAMES:
        pytest.skip("torchvision has a box and a mask of the background")
    arrays = loaded(model, table, state)
    names = NAMES[table.title]
    bgr = next(row.bgr for row in table.rows if row.layer == "conv1")
    for ours, theirs in names.items():
        array = state[theirs]
        if ours == "conv1/kernel":
            expected = array[:, ::-1] if bgr else array
            expected = expected.transpose(2, 3, 1, 0)
        elif ours == "rpn_bbox_pred/bias":
            expected = array.reshape(-1, 4)[:, [1, 0, 3, 2]].ravel()
        elif ours == "mrcnn_class_logits/kernel":
            expected = np.stack([array[2], array[0], array[1]]).T
        elif ours == "mrcnn_bbox_fc/bias":
            expected = np.concatenate([np.zeros(4), array.reshape(-1, 4)[:, [1, 0, 3, 2]].ravel()])
        elif ours == "mrcnn_mask/kernel":
            expected = np.concatenate([np.zeros((1, 7, 1, 1)), array]).transpose(2, 3, 1, 0)
        elif ours == "mrcnn_class_conv1/kernel":
            expected = array.reshape(6, 3, 2, 2).transpose(2, 3, 1, 0)
        else:
            expected = array if array.ndim == 1 else array.transpose(2, 3, 1, 0)
        assert np.array_equal(arrays[ours], expected), ours


@pytest.mark.parametrize(("name", "bgr"), list(zip(PROGRAMS, (False, False, True, False, True), strict=True)))
def test_the_order_of_the_input_channels(name, bgr):
    program, changes, options = PROGRAMS[name]
    rows = program.table(ModelConfig(**NARROW | changes), **options).rows
    assert [row.layer for row in rows if row.bgr] == ["conv1"] * bgr


def test_the_first_box_layer_sees_channels_before_cells():
    """PyTorch flattens crops [C, h, w]; the product must be the same."""
    generator = np.random.default_rng(0)
    theirs, crop = generator.normal(size=(6, 3 * 2 * 2)), generator.normal(size=(2, 2, 3))
    row = Row("mrcnn_class_conv1", ("fc6",), linear=True)
    table = mapping.Table("test", (row,))
    ours = mapping.to_arrays({"fc6.weight": theirs}, table, {"mrcnn_class_conv1/kernel": (2, 2, 3, 6)}, "x")
    product = np.tensordot(crop, ours["mrcnn_class_conv1/kernel"], axes=3)
    np.testing.assert_allclose(product, theirs @ crop.transpose(2, 0, 1).ravel(), rtol=1e-5)


def test_bgr_weights_see_rgb_as_the_program_sees_bgr():
    generator = np.random.default_rng(0)
    theirs, rgb = generator.normal(size=(4, 3, 7, 7)).astype(np.float32), generator.normal(size=(7, 7, 3))
    table = mapping.Table("test", (Row("conv1", ("stem",), bgr=True),))
    ours = mapping.to_arrays({"stem.weight": theirs}, table, {"conv1/kernel": (7, 7, 3, 4)}, "x")["conv1/kernel"]
    bgr = rgb[..., ::-1].transpose(2, 0, 1)
    expected = (theirs * bgr).sum((1, 2, 3))
    np.testing.assert_allclose(np.tensordot(rgb, ours, axes=3), expected, rtol=1e-4)
    assert np.array_equal(mapping.from_arrays({"conv1/kernel": ours}, table)["stem.weight"], theirs)


def test_a_transposed_convolution_keeps_its_cells():
    generator = np.random.default_rng(0)
    theirs, x = generator.normal(size=(3, 2, 2, 2)), generator.normal(size=(1, 1, 1, 3)).astype(np.float32)
    table = mapping.Table("test", (Row("up", ("up",)),))
    kernel = mapping.to_arrays({"up.weight": theirs}, table, {"up/kernel": (2, 2, 2, 3)}, "x")["up/kernel"]
    layer = keras.layers.Conv2DTranspose(2, 2, strides=2, use_bias=False)
    layer.build(x.shape)
    layer.kernel.assign(kernel)
    expected = np.einsum("i,ioyx->yxo", x[0, 0, 0], theirs)  # [I, O, h, w]: each cell of a 2 x 2 block
    np.testing.assert_allclose(layer(tf.constant(x))[0], expected, rtol=1e-5)


def test_names_without_use_are_ignored(case):
    model, table, state = case
    used = state | {"backbone.body.bn1.num_batches_tracked": np.int64(3)}
    if table.title == "Detectron2":
        used |= {"pixel_mean": np.zeros((3, 1, 1)), "pixel_std": np.zeros((3, 1, 1))}
        used |= {"proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4))}
    if table.title == "MMDetection":
        used |= {"ema_backbone_conv1_weight": np.zeros(3)}
    assert load_state(model, used, table, "mine.pth").leftover == ()


def test_the_layers_of_classes_can_be_skipped(case):
    model, table, state = case
    before = loaded(model, table, state)
    moved = {key: array + 1 for key, array in state.items()}
    heads = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")
    for row in table.rows:
        if row.layer in heads:  # as of a file with other classes
            for name in ("weight", "bias"):
                key = f"{row.names[0]}.{name}"
                moved[key] = np.concatenate([moved[key]] * 2)
    report = load_state(model, moved, table, "mine.pth", exclude_heads=True)
    assert {key.split("/")[0] for key in report.excluded} == set(heads)
    after = {key: variable.numpy() for key, variable in mapping.named_variables(model).items()}
    assert {key.split("/")[0] for key in before if np.array_equal(before[key], after[key])} == set(heads)
    with pytest.raises(CheckpointMismatchError, match=r"mine\.pth has another number of classes .*--exclude-heads"):
        load_state(model, moved, table, "mine.pth")


def broken(state, table):
    """A state that does not fit, and what the message must say, by kind of fault."""
    first, last = next(iter(state)), list(state)[-1]
    yield {key: array for key, array in state.items() if key != last}, rf"it lacks {last}"
    few = dict(list(state.items())[:4])
    yield few, rf"is not the Mask R-CNN of {table.title} .* it lacks .*, .*, .* and \d+ more; check 'model'"
    yield state | {"module.more.weight": np.zeros(3)}, r"it has module\.more\.weight, which the network does not have"
    yield (
        {key + "_orig" if key == first else key: array for key, array in state.items()},
        rf"it lacks {first}, and it has {first}_orig",
    )
    yield state | {first: state[first][:-1]}, rf"{first} is \[3, 3, 7, 7\], expected \[4, 3, 7, 7\] \(1 arrays differ\)"
    yield state | {last: np.full_like(state[last], np.nan)}, "not finite"


def test_what_does_not_fit_is_named_and_nothing_changes(case):
    model, table, state = case
    before = loaded(model, table, state)
    for changed, message in broken(state, table):
        with pytest.raises(CheckpointMismatchError, match=message):
            load_state(model, changed, table, "mine.pth")
    after = {key: variable.numpy() for key, variable in mapping.named_variables(model).items()}
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_a_network_that_the_program_does_not_have_is_refused():
    for program in (detectron2, mmdetection):
        with pytest.raises(CheckpointMismatchError, match=r"the network has the layer '\w+', which a Mask R-CNN of"):
            state_of(network(2), program.table(network(2).config.model))
    table, arrays = torchvision.table(network().config.model), get_arrays(network())
    with pytest.raises(CheckpointMismatchError, match="'mrcnn_class_bn1', which a Mask R-CNN of torchvision does not"):
        mapping.from_arrays(arrays | {"mrcnn_class_bn1/gamma": np.ones(6)}, table)
    deeper = torchvision.table(ModelConfig(**NARROW | {"box_head_layers": 3}))
    with pytest.raises(CheckpointMismatchError, match="the network lacks the layer 'mrcnn_class_conv3'"):
        mapping.from_arrays(arrays, deeper)
    with pytest.raises(ConfigError, match="backbone is 'custom'"):
        torchvision.table(ModelConfig(**NARROW | {"backbone": "custom"}))
