"""Run an exported Mask R-CNN: `Predictor` in, `Detections` out. No engine is imported before one is opened.

Names are loaded when they are used, so that the programs can catch Ctrl-C before anything slow is imported.
"""

import os
from typing import TYPE_CHECKING

from runtime.lazy_names import lazy_names

# Read once, when ONNX Runtime is imported: its newer wheels (1.31, 1.32) send events to their maker, and keep an id and
# a database of events in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from runtime.artifact import Metadata as Metadata
    from runtime.artifact_files.read import read_metadata as read_metadata
    from runtime.detections import Detections as Detections
    from runtime.engines.options import EngineOptions as EngineOptions
    from runtime.errors import (
        ArtifactCorruptError as ArtifactCorruptError,
        ArtifactError as ArtifactError,
        ArtifactNotFoundError as ArtifactNotFoundError,
        ArtifactVerdictError as ArtifactVerdictError,
        ArtifactVersionError as ArtifactVersionError,
        ClosedError as ClosedError,
        DeviceError as DeviceError,
        EngineError as EngineError,
        ForeignArtifactError as ForeignArtifactError,
        ImageError as ImageError,
        InputError as InputError,
        MissingPackageError as MissingPackageError,
        OutOfMemoryError as OutOfMemoryError,
        OutputError as OutputError,
        RuntimeLibraryError as RuntimeLibraryError,
        ToolkitError as ToolkitError,
    )
    from runtime.placement import Placement as Placement
    from runtime.predictor import Predictor as Predictor
    from runtime.tracking import Tracker as Tracker

__all__, __dir__, __getattr__ = lazy_names(
    __name__,
    {
        "runtime.artifact": "Metadata",
        "runtime.artifact_files.read": "read_metadata",
        "runtime.detections": "Detections",
        "runtime.engines.options": "EngineOptions",
        "runtime.errors": "ArtifactCorruptError ArtifactError ArtifactNotFoundError ArtifactVerdictError "
        "ArtifactVersionError ClosedError DeviceError EngineError ForeignArtifactError ImageError InputError "
        "MissingPackageError OutOfMemoryError OutputError RuntimeLibraryError ToolkitError",
        "runtime.placement": "Placement",
        "runtime.predictor": "Predictor",
        "runtime.tracking": "Tracker",
    },
)
