"""Every error the exporter raises on purpose.

    ExportError
    ├── ConversionError           the graph cannot be converted or contains forbidden operators
    ├── ParityError               the artifact does not compute what the model computes; nothing was written
    ├── SourceError               the genuine model of a PyTorch checkpoint cannot be run; nothing was written
    ├── PrecisionError            the artifact loses too much accuracy in lower precision; nothing was written
    ├── EditError (ValueError)    an artifact cannot be changed as asked; it is as it was
    └── LayoutError (ValueError)  a folder for a server cannot be made as asked; nothing was written

Each message is one line: what was wrong, where, what was expected, what to do.
"""

from typing import TYPE_CHECKING

from runtime.errors import ToolkitError

if TYPE_CHECKING:
    from export.verify.verdict import PrecisionGate, Verdict


class ExportError(ToolkitError):
    """Base of all errors raised by `export`; catch it to catch them all."""


class ConversionError(ExportError):
    """The graph cannot be converted or contains forbidden operators."""


class ParityError(ExportError):
    """The artifact does not compute what the model computes; nothing was written.

    Attributes:
        verdict: Result of the comparison, with every failure.
    """

    def __init__(self, verdict: "Verdict") -> None:
        failures = verdict.failures()
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        super().__init__(f"the artifact does not match the model: {failures[0]}{more}")
        self.verdict = verdict


class SourceError(ExportError):
    """The genuine model of a PyTorch checkpoint cannot be run beside the artifact; nothing was written."""


class PrecisionError(ExportError):
    """The artifact loses too much accuracy in lower precision; nothing was written.

    Attributes:
        gate: Result of the comparison with the float32 model.
    """

    def __init__(self, gate: "PrecisionGate") -> None:
        calibrate = "calibrate with more images like those the model will see, or "
        remedy = calibrate if gate.calibrated else "use another precision, or "
        super().__init__(
            f"in {gate.precision}, {gate.measure} against {gate.against} drops from {gate.reference:.4f} to "
            f"{gate.found:.4f}; the largest allowed drop is {gate.allowed:g}: {remedy}allow a larger drop with "
            "--max-drop"
        )
        self.gate = gate


class EditError(ExportError, ValueError):
    """An artifact cannot be changed as asked; it is as it was."""


class LayoutError(ExportError, ValueError):
    """A folder for a server cannot be made as asked; nothing was written."""
