"""A TensorFlow function as the verification sees it: with borders, and stage by stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from export.convert.trace import SIGNATURE, STAGES, Stage, border
from runtime.artifact import INPUT_NAMES

Arrays = dict[str, npt.NDArray[Any]]


class TensorFlowStages:
    """Runs stages cut out of a function's own graph.

    Args:
        function: A concrete function over the artifact's inputs, traced by `export.convert.trace.trace` or restored
            from a SavedModel.
    """

    def __init__(self, function: Any) -> None:
        definition = convert_variables_to_constants_v2(function).graph.as_graph_def()
        self._graph = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), [])
        # A restored function is inlined under a scope of its own, so borders are found by their last part;
        # inputs of a signature are called after its key.
        self._tensors = {
            node.name.rsplit("/", 1)[-1].removeprefix(f"{SIGNATURE}_"): f"{node.name}:0"
            for node in definition.node
            if node.op in ("Identity", "Placeholder")
        }

    @classmethod
    def of_savedmodel(cls, path: Path) -> Self:
        """Stages of a SavedModel folder."""
        loaded = tf.saved_model.load(str(path))  # owns the variables while the graph is frozen
        return cls(loaded.signatures[SIGNATURE])

    def run_stage(self, stage: Stage, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Compute one stage from border tensors and graph inputs."""
        inputs = {border(name): feeds[name] for name in stage.inputs} | {n: feeds[n] for n in INPUT_NAMES}
        return self._run(inputs, stage.outputs)

    def run_borders(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the whole graph and return its border tensors."""
        names = tuple(name for stage in STAGES for name in stage.outputs)
        return self._run({name: feeds[name] for name in INPUT_NAMES}, names)

    def _run(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: tuple[str, ...]) -> Arrays:
        graph = self._graph.graph
        feeds = [graph.get_tensor_by_name(self._tensors[name]) for name in inputs]
        fetches = [graph.get_tensor_by_name(self._tensors[border(name)]) for name in outputs]
        with tf.device("/CPU:0"):
            results = self._graph.prune(feeds, fetches)(*[tf.constant(array) for array in inputs.values()])
        return {name: result.numpy() for name, result in zip(outputs, results, strict=True)}
