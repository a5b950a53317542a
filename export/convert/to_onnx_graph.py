"""Convert a model to ONNX: trace, convert with our handlers, rewrite, audit."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import onnx

from export.convert.audit import GraphFacts, audit
from export.convert.fewer_kernels import use_fewer_kernels
from export.convert.handlers import handlers_for
from export.convert.rewrites import rewrite
from export.convert.surgery import Border, cancel_transposes, find_borders, fix_inputs, keep_outputs, shape_axes
from export.convert.trace import input_signature, level_sampler, trace
from export.errors import ConversionError
from export.target import CPU, Target
from maskrcnn.configuration.model import DetectionConfig
from maskrcnn.model import MaskRCNN
from runtime.artifact import NMS_THRESHOLD, OUTPUT_NAMES, SCORE_THRESHOLD


class Converted(NamedTuple):
    """A converted model: the graph to ship, whose batch axis is dynamic, and where it holds stage boundary tensors."""

    artifact: onnx.ModelProto
    borders: dict[str, Border]
    facts: GraphFacts


def convert(model: MaskRCNN, target: Target = CPU) -> Converted:
    """Convert and audit a model.

    Raises:
        ConversionError: The graph contains something forbidden or lacks a stage boundary tensor.
    """
    shape = (None, *target.input_shape(model.config.resize)[1:])
    from tf2onnx import convert as tf2onnx_convert  # noqa: PLC0415  (imports TensorFlow)

    # It only logs what it cannot convert; the audit below decides.
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with quick_optimizer():
        staged, _ = tf2onnx_convert.from_function(
            trace(
                model,
                True,
                target.every_row,
                shape,
                nms_in_steps=target.every_row,
                sampler=level_sampler(model.config.model),
            ),
            input_signature=input_signature(model.config, shape),
            opset=target.opset,
            custom_op_handlers=handlers_for(target),
        )
    cancel_transposes(staged)
    shape_axes(staged, shape)
    borders = find_borders(staged)
    artifact = keep_outputs(staged, OUTPUT_NAMES)
    between = [place.tensor for place in borders.values()]
    rewrite(artifact, between)
    if target.engine == "cuda":
        use_fewer_kernels(artifact, between)
    kept = {tensor for node in artifact.graph.node for tensor in node.output}
    lost = [name for name, place in borders.items() if place.tensor not in kept]
    if lost:
        raise ConversionError(
            f"the converted graph lacks the tensor {lost[0]!r} between stages, so they cannot be verified"
        )
    if target.thresholds == "constants":
        fix_thresholds(artifact, model.config.detection)
    artifact.producer_name = "maskrcnn-export"
    artifact.graph.name = model.config.name
    return Converted(artifact, borders, audit(artifact, target.opset))


def fix_thresholds(artifact: onnx.ModelProto, detection: DetectionConfig) -> None:
    """Replace the thresholds' inputs by constants, in place."""
    fix_inputs(artifact, {SCORE_THRESHOLD: detection.min_score, NMS_THRESHOLD: detection.nms_threshold})


@contextmanager
def quick_optimizer() -> Iterator[None]:
    """Leave out what tf2onnx's optimizations do again and again for nothing: a third of an export of ResNet-50.

    Before each one it copies the graph, in case it fails: here it fails. After each one it copies all weights into
    protocol buffers, which nobody reads before the last, and looks for unused nodes from each output alone.
    """
    from tf2onnx.graph import Graph  # noqa: PLC0415
    from tf2onnx.optimizer.optimizer_base import GraphOptimizerBase  # noqa: PLC0415

    name = "TF2ONNX_CATCH_ERRORS"
    places = ((GraphOptimizerBase, "optimize", _optimize), (Graph, "extract_sub_graph_nodes", _needed_nodes))
    before, originals = os.environ.get(name), [getattr(owner, method) for owner, method, _ in places]
    os.environ[name] = "FALSE"
    for owner, method, ours in places:
        setattr(owner, method, ours)
    try:
        yield
    finally:
        for (owner, method, _), original in zip(places, originals, strict=True):
            setattr(owner, method, original)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _optimize(optimizer: Any, graph: Any, iteration: int) -> Any:
    optimizer.opt_iteration = iteration
    graph = optimizer._optimize(graph)
    graph.delete_unused_nodes(graph.outputs)
    return graph


def _needed_nodes(
    graph: Any, outputs_name: Iterable[str], input_checker: Any = None, remove_unused_inputs: bool = True
) -> list[Any]:
    """Return the nodes that outputs depend on; each node is visited once."""
    waiting = list(outputs_name)
    if not remove_unused_inputs:
        waiting += [node.output[0] for node in graph.inputs]
    found: dict[Any, None] = {}
    while waiting:
        node = graph.get_node_by_output(waiting.pop(), search_in_parent_graphs=False)
        if node is None or node in found or (input_checker and input_checker(node) is False):
            continue
        found[node] = None
        waiting += (*node.input, *node.get_implicit_inputs())
    return list(found)
