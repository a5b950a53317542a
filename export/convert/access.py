"""Read and change an ONNX graph: constants, readers of tensors, shapes, attributes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class Constants:
    """The initializers of a graph, by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def find(self, name: str) -> npt.NDArray[Any] | None:
        """Return the value of a constant, or None if there is no constant of that name."""
        return numpy_helper.to_array(self._tensors[name]) if name in self._tensors else None

    def read(self, name: str) -> npt.NDArray[Any]:
        """Return the value of a constant."""
        return numpy_helper.to_array(self._tensors[name])

    def add(self, name: str, value: npt.NDArray[Any], floating: npt.DTypeLike = np.float32) -> str:
        """Add a constant and return its name; floating-point values become `floating`."""
        value = value.astype(floating) if value.dtype.kind == "f" else value
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self._graph.initializer.append(tensor)
        self._tensors[name] = tensor
        return name

    def drop_unread(self) -> None:
        """Remove constants that no node reads and that are not the default of an input."""
        read = {name for node in self._graph.node for name in node.input} | {i.name for i in self._graph.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)


def readers_of(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes that read each tensor; None stands for a graph output."""
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    for output in model.graph.output:
        readers[output.name].append(None)
    return readers


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """Return the shapes of tensors as far as they can be inferred; None for a dynamic axis."""
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.input]
    return {
        value.name: [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
        for value in values
    }


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node that are set; the others have their defaults."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph other nodes, in the given order; they may be nodes of the same graph."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
