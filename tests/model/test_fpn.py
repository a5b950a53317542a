"""The feature pyramid against NumPy, with weights that make every step visible."""

import numpy as np
import pytest
import tensorflow as tf

from maskrcnn.fpn import build_fpn

# One channel, so that 1 x 1 convolutions are factors and 3 x 3 ones can pass a map through.
LATERAL = {5: 1.0, 4: 0.5, 3: 0.25, 2: 2.0}


def passing_fpn():
    fpn = build_fpn([1, 1, 1, 1], 1)
    for level, factor in LATERAL.items():
        layer = fpn.get_layer("fpn_c5p5" if level == 5 else f"fpn_c{level}p{level}")
        layer.set_weights([np.full((1, 1, 1, 1), factor, np.float32), np.zeros(1, np.float32)])
        center = np.zeros((3, 3, 1, 1), np.float32)
        center[1, 1] = 1
        fpn.get_layer(f"fpn_p{level}").set_weights([center, np.full(1, level, np.float32)])
    return fpn


@pytest.mark.parametrize("cells", [(2, 3), (1, 1), (3, 2)])
def test_levels_are_nearest_sums_from_the_top(cells):
    generator = np.random.default_rng(0)
    c5, c4, c3, c2 = (
        generator.normal(size=(2, cells[0] * s, cells[1] * s, 1)).astype(np.float32) for s in (1, 2, 4, 8)
    )
    outputs = passing_fpn()([tf.constant(c) for c in (c2, c3, c4, c5)])
    p5 = c5
    p4 = np.repeat(np.repeat(p5, 2, axis=1), 2, axis=2) + 0.5 * c4
    p3 = np.repeat(np.repeat(p4, 2, axis=1), 2, axis=2) + 0.25 * c3
    p2 = np.repeat(np.repeat(p3, 2, axis=1), 2, axis=2) + 2.0 * c2
    expected = [p2 + 2, p3 + 3, p4 + 4, p5 + 5, (p5 + 5)[:, ::2, ::2]]
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.shape == wanted.shape
        np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5)


def test_shapes_and_weights_of_the_published_size():
    fpn = build_fpn([256, 512, 1024, 2048], 256)
    shapes = {layer.name: layer.kernel.shape for layer in fpn.layers if layer.variables}
    assert shapes == {
        "fpn_c5p5": (1, 1, 2048, 256),
        "fpn_c4p4": (1, 1, 1024, 256),
        "fpn_c3p3": (1, 1, 512, 256),
        "fpn_c2p2": (1, 1, 256, 256),
        "fpn_p2": (3, 3, 256, 256),
        "fpn_p3": (3, 3, 256, 256),
        "fpn_p4": (3, 3, 256, 256),
        "fpn_p5": (3, 3, 256, 256),
    }
