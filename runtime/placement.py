"""Where the nodes of a run were executed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

RECEIVING = ("_Recv", "_HostRecv")  # TensorFlow's operators that receive from another device; others send


@dataclass(frozen=True)
class Placement:
    """On which device (TensorFlow, OpenVINO) or provider (ONNX Runtime) the nodes of a run were executed, and how long.

    Attributes:
        device: The device of the predictor.
        counts: Number of nodes by (provider or device, operator type). Operators of OpenVINO are those of its compiled
            graph.
        milliseconds: Kernel time of these nodes, by the same keys; the times of parallel nodes are added up. 0 for
            copies in TensorFlow, which does not measure them.
    """

    device: str
    counts: Mapping[tuple[str, str], int]
    milliseconds: Mapping[tuple[str, str], float]

    @property
    def copies(self) -> int:
        """Number of copies between devices, such as the host and a GPU, that the engine put into the graph."""
        return sum(n for (_, op), n in self.counts.items() if _copies(op))

    @property
    def on_cpu(self) -> dict[str, int]:
        """Number of nodes that a predictor of a GPU ran on the CPU, by operator type, without copies."""
        if self.device == "cpu":
            return {}
        return {op: n for (where, op), n in self.counts.items() if where.startswith("CPU") and not _copies(op)}

    def __str__(self) -> str:
        places: Counter[str] = Counter()
        for (where, _), n in self.counts.items():
            places[where] += n
        lines = [f"device {self.device}" + ("" if self.device == "cpu" else f", {self.copies} copies between devices")]
        for where, total in places.most_common():
            operators = sorted(((n, op) for (w, op), n in self.counts.items() if w == where), reverse=True)
            lines.append(f"{where}: {total} nodes: " + ", ".join(f"{op} {n}" for n, op in operators))
        return "\n".join(lines)


def _copies(operator: str) -> bool:
    return operator.startswith("Memcpy") or operator in RECEIVING
