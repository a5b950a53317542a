"""Where the nodes of a run were executed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """On which device (TensorFlow) or provider (ONNX Runtime) the nodes of a run were executed, and how long they took.

    Attributes:
        device: The device of the predictor.
        counts: Number of nodes by (provider or device, operator type).
        milliseconds: Kernel time of these nodes, by the same keys; the times of parallel nodes are added up.
    """

    device: str
    counts: Mapping[tuple[str, str], int]
    milliseconds: Mapping[tuple[str, str], float]

    def __str__(self) -> str:
        places: Counter[str] = Counter()
        for (where, _), n in self.counts.items():
            places[where] += n
        lines = [f"device {self.device}"]
        for where, total in places.most_common():
            operators = sorted(((n, op) for (w, op), n in self.counts.items() if w == where), reverse=True)
            lines.append(f"{where}: {total} nodes: " + ", ".join(f"{op} {n}" for n, op in operators))
        return "\n".join(lines)
