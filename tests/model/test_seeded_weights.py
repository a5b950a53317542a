"""Seeded weights are the goldens' weights to the bit, on every machine."""

import zlib

import golden
import models
import numpy as np
import pytest

from benchmarks.seeded_weights import seeded_weight
from maskrcnn.checkpoints.matterport_h5 import group_of
from maskrcnn.checkpoints.named_weights import named_variables

# Weight, shape, seed, CRC-32 of its little-endian float32 bytes; one of each rule at least.
CHECKSUMS = [
    ("conv1/conv1/kernel:0", (7, 7, 3, 64), 0, 2342147592),
    ("bn_conv1/bn_conv1/moving_variance:0", (64,), 0, 1128881060),
    ("bn2a_branch1/bn2a_branch1/gamma:0", (256,), 0, 3838387532),
    ("bn2a_branch1/bn2a_branch1/beta:0", (256,), 0, 3631853437),
    ("bn2a_branch1/bn2a_branch1/moving_mean:0", (256,), 0, 2807606632),
    ("res2a_branch1/res2a_branch1/kernel:0", (1, 1, 64, 256), 0, 1197765093),
    ("res2a_branch2c/res2a_branch2c/kernel:0", (1, 1, 64, 256), 0, 4244448834),
    ("res4a_branch2c/res4a_branch2c/kernel:0", (1, 1, 256, 1024), 1, 1504041099),
    ("fpn_c5p5/fpn_c5p5/kernel:0", (1, 1, 2048, 256), 0, 5682636),
    ("fpn_p2/fpn_p2/kernel:0", (3, 3, 256, 256), 0, 2812275144),
    ("rpn_model/rpn_class_raw/kernel:0", (1, 1, 512, 6), 0, 1984828944),
    ("rpn_model/rpn_bbox_pred/bias:0", (12,), 0, 137552390),
    ("mrcnn_class_logits/mrcnn_class_logits/kernel:0", (1024, 4), 0, 966980927),
    ("mrcnn_class_logits/mrcnn_class_logits/bias:0", (4,), 0, 3151236207),
    ("mrcnn_class_logits/mrcnn_class_logits/kernel:0", (1024, 81), 0, 3636786832),
    ("mrcnn_bbox_fc/mrcnn_bbox_fc/kernel:0", (1024, 16), 0, 3630538944),
    ("mrcnn_mask_deconv/mrcnn_mask_deconv/kernel:0", (2, 2, 256, 256), 2, 2864202317),
    ("mrcnn_mask/mrcnn_mask/kernel:0", (1, 1, 256, 4), 0, 3444440968),
]


def checksum(weight):
    assert weight.dtype == np.float32
    return zlib.crc32(np.ascontiguousarray(weight, "<f4").tobytes())


@pytest.mark.parametrize(("key", "shape", "seed", "expected"), CHECKSUMS, ids=str)
def test_weights_have_the_goldens_bits(key, shape, seed, expected):
    assert checksum(seeded_weight(key, shape, seed)) == expected


def test_every_weight_that_the_original_was_run_with():
    weights = [
        (key, tuple(int(side) for side in shape.split("x")), int(seed), expected)
        for key, of_shape in golden.load_json("weights_crc32").items()
        for shape, of_seed in of_shape.items()
        for seed, expected in of_seed.items()
    ]
    assert len(weights) == 1158
    wrong = [weight for weight in weights if checksum(seeded_weight(*weight[:3])) != weight[3]]
    assert wrong == []


def test_a_model_is_filled_with_them():
    variables = named_variables(models.small_model())
    checked = 0
    for key, shape, seed, expected in CHECKSUMS:
        name = key.split("/", 1)[1].removesuffix(":0")
        if seed == 0 and tuple(variables[name].shape) == shape:
            assert key == f"{group_of(name.split('/')[0])}/{name}:0"
            assert checksum(variables[name].numpy()) == expected
            checked += 1
    assert checked == 15


def test_seeds_differ():
    first, second = (seeded_weight("conv1/conv1/kernel:0", (7, 7, 3, 64), seed) for seed in (0, 1))
    assert (first != second).mean() > 0.99
