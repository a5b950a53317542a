"""Every error the exporter raises on purpose.

    ExportError
    ├── ConversionError      the graph cannot be converted, or holds operators that must not be there
    ├── ParityError          the artifact does not compute what the model computes; nothing was written
    └── PrecisionError       in lower precision the artifact finds too little; nothing was written

Each message is one line: what was wrong, where, what was expected, what to do.
"""

from typing import TYPE_CHECKING

from runtime.errors import ToolkitError

if TYPE_CHECKING:
    from export.precision.gate import PrecisionGate
    from export.verify.verdict import Verdict


class ExportError(ToolkitError):
    """Base of all errors raised by `export`; catch it to catch them all."""


class ConversionError(ExportError):
    """The graph cannot be converted, or holds operators that must not be there."""


class ParityError(ExportError):
    """The artifact does not compute what the model computes; nothing was written.

    Attributes:
        verdict: What was compared.
    """

    def __init__(self, verdict: "Verdict") -> None:
        failures = verdict.failures()
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        super().__init__(f"the artifact is not proven equal to the model: {failures[0]}{more}")
        self.verdict = verdict


class PrecisionError(ExportError):
    """In lower precision the artifact finds too little; nothing was written.

    Attributes:
        gate: What was compared.
    """

    def __init__(self, gate: "PrecisionGate") -> None:
        super().__init__(
            f"in {gate.precision} the {gate.measure} against {gate.against} falls from {gate.reference:.4f} to "
            f"{gate.found:.4f}, allowed is a drop of {gate.allowed:g}: calibrate with more pictures like those of use, "
            "or allow more with --max-drop"
        )
        self.gate = gate
