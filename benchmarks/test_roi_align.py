"""ROIAlign of 1000 boxes: the atlas with one operator, against tf2onnx's own conversion, in ONNX Runtime."""

import numpy as np
import onnxruntime as ort
import pytest
import tensorflow as tf
from tf2onnx import convert

from export.convert.handlers import HANDLERS

COUNT, CHANNELS = 1000, 64
SIGNATURE = [
    tf.TensorSpec([1, None, None, CHANNELS], tf.float32, name="image"),
    tf.TensorSpec([None, 4], tf.float32, name="boxes"),
]


@tf.function(input_signature=SIGNATURE)
def crop(image, boxes):
    return {"crops": tf.image.crop_and_resize(image, boxes, tf.zeros_like(boxes[:, 0], tf.int32), [7, 7])}


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((COUNT, 2, 2)), axis=1).reshape(COUNT, 4).astype(np.float32)
    return {"image": rng.normal(size=(1, 130, 198, CHANNELS)).astype(np.float32), "boxes": corners}


def converted(handlers):
    model, _ = convert.from_function(crop, input_signature=SIGNATURE, opset=17, custom_op_handlers=handlers)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.benchmark(group="crops of 1000 boxes, 7 x 7 x 64")
def test_roi_align_operator(benchmark, arrays):
    benchmark(converted(dict(HANDLERS)).run, None, arrays)


@pytest.mark.benchmark(group="crops of 1000 boxes, 7 x 7 x 64")
def test_loop_of_resizes(benchmark, arrays):
    """The peer: what tf2onnx makes of `crop_and_resize` by itself."""
    benchmark.pedantic(converted({}).run, (None, arrays), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="crops of 1000 boxes, 7 x 7 x 64")
def test_tensorflow_operator(benchmark, arrays):
    tensors = {name: tf.constant(array) for name, array in arrays.items()}

    def run():
        return crop(**tensors)["crops"].numpy()

    benchmark(run)
