"""Run an exported Mask R-CNN: `Predictor` in, `Detections` out. No engine is imported before one is opened."""

from runtime.artifact import Metadata
from runtime.artifact_files.read import read_metadata
from runtime.detections import Detections
from runtime.engines.options import EngineOptions
from runtime.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactNotFoundError,
    ArtifactVerdictError,
    ArtifactVersionError,
    ClosedError,
    DeviceError,
    EngineError,
    ForeignArtifactError,
    ImageError,
    InputError,
    MissingPackageError,
    OutOfMemoryError,
    OutputError,
    RuntimeLibraryError,
    ToolkitError,
)
from runtime.placement import Placement
from runtime.predictor import Predictor

__all__ = [
    "ArtifactCorruptError",
    "ArtifactError",
    "ArtifactNotFoundError",
    "ArtifactVerdictError",
    "ArtifactVersionError",
    "ClosedError",
    "Detections",
    "DeviceError",
    "EngineError",
    "EngineOptions",
    "ForeignArtifactError",
    "ImageError",
    "InputError",
    "Metadata",
    "MissingPackageError",
    "OutOfMemoryError",
    "OutputError",
    "Placement",
    "Predictor",
    "RuntimeLibraryError",
    "ToolkitError",
    "read_metadata",
]
