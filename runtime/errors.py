"""The errors that the runtime raises on purpose, and the root of all errors of the three packages.

    ToolkitError
    └── RuntimeLibraryError
        ├── ImageError (ValueError)              an image cannot be used
        ├── InputError (ValueError)              an argument or tensor of the wrong type, shape or range
        ├── ArtifactError (ValueError)           a model file cannot be used
        │   ├── ArtifactNotFoundError (FileNotFoundError)
        │   ├── ArtifactCorruptError             truncated, or its bytes differ from the recorded digest
        │   ├── ArtifactVersionError             written by another schema version
        │   ├── ArtifactVerdictError             its verdict does not prove that its graph equals the model
        │   └── ForeignArtifactError             a readable file that maskrcnn-export did not write
        ├── DeviceError (RuntimeError)           the requested device cannot be used
        ├── EngineError (RuntimeError)           an engine failed in a run, or cannot be used in this process
        │   └── OutOfMemoryError (MemoryError)   there was too little memory for the run
        ├── ClosedError (RuntimeError)           a predictor was used after it was closed
        ├── OutputError (OSError)                a file cannot be written at the given path
        └── MissingPackageError (ImportError)    an optional package is missing; names the extra to install

Each message is one printable line: what is wrong, where, what was expected, what to do.
"""

from collections.abc import Collection

from runtime.one_line import printable_message


class ToolkitError(Exception):
    """Root of the errors that `runtime`, `maskrcnn` and `export` raise on purpose."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*map(printable_message, arguments))  # names and values in a message may come from a file


def comes_from(error: Exception, packages: Collection[str]) -> bool:
    """Return whether an exception has a type of one of these packages, or a built-in one and was raised in their code.

    Signal handlers run between any two steps of ours, so what they raise can arrive where errors of another library are
    translated. It is not to be mistaken for one of those.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))
    made_in = type(error).__module__
    return (raised_in if made_in == "builtins" else made_in).partition(".")[0] in packages


class RuntimeLibraryError(ToolkitError):
    """Base of all errors raised by `runtime`; catch it to catch them all."""


class ImageError(RuntimeLibraryError, ValueError):
    """An image cannot be read, or is of a kind that is not converted."""


class InputError(RuntimeLibraryError, ValueError):
    """An argument or a tensor has the wrong type, shape or range."""


class ArtifactError(RuntimeLibraryError, ValueError):
    """A model artifact cannot be used."""


class ArtifactNotFoundError(ArtifactError, FileNotFoundError):
    """There is no artifact at the given path."""


class ArtifactCorruptError(ArtifactError):
    """The artifact is truncated or its bytes differ from the recorded digest."""


class ArtifactVersionError(ArtifactError):
    """The artifact was written with a schema version that this package does not know."""


class ArtifactVerdictError(ArtifactError):
    """The artifact's verdict failed, belongs to another graph, or does not say to which it belongs."""


class ForeignArtifactError(ArtifactError):
    """A readable model file that was not written by maskrcnn-export."""


class DeviceError(RuntimeLibraryError, RuntimeError):
    """The requested device cannot be used; there is no silent fallback."""


class EngineError(RuntimeLibraryError, RuntimeError):
    """The engine failed in a run, or cannot be used in this process."""


class OutOfMemoryError(EngineError, MemoryError):
    """There was too little memory for a run, after which the predictor can still be used, or to open an artifact."""


class ClosedError(RuntimeLibraryError, RuntimeError):
    """A predictor was used after it was closed."""


class OutputError(RuntimeLibraryError, OSError):
    """A file cannot be written at the given path; an existing file there is unchanged."""


class MissingPackageError(RuntimeLibraryError, ImportError):
    """An optional package is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: pip install 'maskrcnn-export[{extra}]'"
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Support `pickle`, as for an error of another process."""
        return type(self), (self.package, self.extra, self.purpose)
