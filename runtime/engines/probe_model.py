"""The smallest model that shows whether an engine computes on a GPU."""

from runtime.artifact_files.protobuf import field, varint_field

_NAME, _INPUT, _OUTPUT, _TYPE = 1, 1, 2, 4


def probe_model() -> bytes:
    """Return an ONNX model, y = -conv(x, w) of float32 [1, 1, 1, 1], opset 17, written without the onnx package.

    ONNX Runtime opens a session on CUDA without cuDNN, and on a device that it has no code for. Only a run tells: of a
    convolution, which is cuDNN's, and of something else, which is its own.
    """
    one = field(1, varint_field(1, 1))
    tensor = field(1, varint_field(1, 1) + field(2, one * 4))
    values = {name: field(_NAME, name) + field(2, tensor) for name in (b"x", b"w", b"y")}
    convolution = field(_INPUT, b"x") + field(_INPUT, b"w") + field(_OUTPUT, b"between") + field(_TYPE, b"Conv")
    negation = field(_INPUT, b"between") + field(_OUTPUT, b"y") + field(_TYPE, b"Neg")
    graph = field(1, convolution) + field(1, negation) + field(2, b"probe")
    graph += field(11, values[b"x"]) + field(11, values[b"w"]) + field(12, values[b"y"])
    return varint_field(1, 8) + field(7, graph) + field(8, varint_field(2, 17))
