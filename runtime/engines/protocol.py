"""What every engine offers with an artifact loaded."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from runtime.placement import Placement

Arrays = dict[str, npt.NDArray[Any]]


class Backend(Protocol):
    """An engine with an artifact loaded."""

    device: str

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph; names and shapes are those of `runtime.artifact`."""

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run and report where each node was executed, and its time once the engine is warm."""

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:
        """Run once and return the tensors between the stages of the graph.

        Args:
            inputs: As for a run.
            places: Where they are in the graph: `Metadata.borders`.
        """


class StageCutter(Protocol):
    """A graph cut at its stage boundary tensors, `names`."""

    names: tuple[str, ...]

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Arrays:
        """Compute stage boundary tensors.

        Args:
            feeds: Graph inputs, and the stage boundary tensors to start from; tensors that are not needed are ignored.
            names: The tensors to compute.
        """
