"""The two Python models around a network in Triton: an encoded image to tensors, and tensors to JSON.

`maskrcnn export triton` writes the repository that uses them. They need NumPy and Pillow, no engine. Tensors pass
through DLPack alone and hold numbers alone: Triton's own conversion to NumPy, in builds for NumPy 1, returns other
values of arrays of NumPy 2 without an error.
"""

import ctypes
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.artifact import IMAGES, NUM_DETECTIONS, OUTPUT_NAMES, WINDOWS, Metadata
from runtime.artifact_files.onnx_file import recorded_file_digest
from runtime.engines.outputs import check_outputs
from runtime.errors import ArtifactCorruptError, EngineError, ImageError, InputError
from runtime.json_file import read_json_file
from runtime.pictures.letterbox import plan_letterbox
from runtime.steps import letterbox_picture, to_detections

# Names in a repository; a model's parts are its name with a suffix.
NET, BEFORE, AFTER = "_net", "_before", "_after"
IMAGE, IMAGE_SIZE, DETECTIONS = "image", "image_size", "detections"
DIGEST_PARAMETER = "maskrcnn_sha256"  # of `config.pbtxt`: the digest of the artifact that the repository was made of
RECORD = "artifact.json"  # beside `model.py`: that digest, the network file's digest, and the metadata
NETWORK_FILE = "model.onnx"


class _PythonModel(ABC):
    """What both models share: the check of digests and of tensors at the start, and errors as Triton expects them."""

    _suffix = ""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Compare digests and read the metadata; Triton calls it once and does not load a model that raises."""
        import triton_python_backend_utils as triton  # noqa: PLC0415  (exists only in Triton's processes)

        self._triton = triton
        self._metadata = _read_record(args, self._suffix)
        _check_tensors(triton)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        triton = self._triton
        try:
            answer = self._answer(request)
        except (ImageError, InputError) as error:
            problem = triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
            return triton.InferenceResponse([], problem)
        except EngineError as error:
            problem = triton.TritonError(str(error), triton.TritonError.INTERNAL)
            return triton.InferenceResponse([], problem)
        return triton.InferenceResponse([to_tensor(triton, name, array) for name, array in answer.items()])

    @abstractmethod
    def _answer(self, request: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs for a request, by name."""

    def _get(self, request: Any, name: str) -> npt.NDArray[Any]:
        """Return an input tensor; it shares Triton's memory, which is gone after the request."""
        array: npt.NDArray[Any] = np.from_dlpack(self._triton.get_input_tensor_by_name(request, name))
        return array


class BeforeModel(_PythonModel):
    """Makes the network's inputs of an encoded image, as `Predictor.prepare` does."""

    _suffix = BEFORE

    def _answer(self, request: Any) -> dict[str, npt.NDArray[Any]]:
        metadata = self._metadata
        encoded = self._get(request, IMAGE).tobytes()
        letterbox, prepared = letterbox_picture(
            encoded, metadata.image_channels, metadata.resize, pixels=metadata.pixels
        )
        return {
            IMAGES: prepared[None],
            WINDOWS: np.array([letterbox.window], np.float32),
            IMAGE_SIZE: np.array([letterbox.image_size], np.int32),
        }


class AfterModel(_PythonModel):
    """Makes JSON of the network's outputs, as `Predictor.finish` and `Detections.to_json` do."""

    _suffix = AFTER

    def _answer(self, request: Any) -> dict[str, npt.NDArray[Any]]:
        metadata = self._metadata
        height, width = self._get(request, IMAGE_SIZE)[0].tolist()
        outputs = {name: np.array(self._get(request, name)) for name in OUTPUT_NAMES}
        outputs[NUM_DETECTIONS] = outputs[NUM_DETECTIONS].reshape(1)  # Triton has no tensors without axes
        if outputs[NUM_DETECTIONS][0] < 0:
            raise EngineError(
                "the steps of suppression in the network did not suffice for this image, which has long chains of "
                "overlapping objects: use Predictor, which continues them, or serve an artifact of --target cpu"
            )
        letterbox = plan_letterbox((height, width), metadata.resize)
        frame: dict[str, npt.NDArray[Any]] = {  # all that the check needs of the inputs is their sizes
            IMAGES: np.empty((1, *letterbox.input_size, 0), np.uint8),
            WINDOWS: np.array([letterbox.window], np.float32),
        }
        check_outputs(outputs, frame, metadata, Path(NETWORK_FILE))
        one = {name: array[0] for name, array in outputs.items()}
        found = to_detections(one, letterbox, metadata.class_names, metadata.mask_paste)
        # Half a pair of surrogates in a class name is not UTF-8; its Python escape is also JSON's.
        return {DETECTIONS: np.frombuffer(found.to_json().encode(errors="backslashreplace"), np.uint8)}


def to_tensor(triton: Any, name: str, array: npt.NDArray[Any]) -> Any:
    """Return a tensor of Triton with an array's values.

    Args:
        triton: The module `triton_python_backend_utils`.
        name: Name of the tensor.
        array: Numbers.
    """
    # DLPack cannot say that an array must not be written to, so NumPy does not export such arrays.
    capsule = np.require(array, requirements=("C", "W")).__dlpack__()
    # Triton takes the array over, but does not rename the capsule as NumPy's destructor expects. It would then print a
    # traceback for each tensor.
    forget = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)
    forget(("PyCapsule_SetDestructor", ctypes.pythonapi))(capsule, None)
    return triton.Tensor.from_dlpack(name, capsule)


def _read_record(args: Mapping[str, str], suffix: str) -> Metadata:
    """Return the metadata beside a model, after a comparison of digests.

    The models of one repository belong together. The network is looked at where it lies in the same folder; of a
    repository in a bucket, Triton copies each model to a place of its own.

    Raises:
        ArtifactCorruptError: Two parts of the repository come from different artifacts.
    """
    folder, version = Path(args["model_repository"]), args["model_version"]
    place = folder / version / RECORD
    recorded = read_json_file(place)
    digest = json.loads(args["model_config"])["parameters"].get(DIGEST_PARAMETER, {}).get("string_value")
    network = folder.parent / (args["model_name"].removesuffix(suffix) + NET) / version / NETWORK_FILE
    _require_same(place, recorded["sha256"], folder / "config.pbtxt", digest)
    if network.is_file():
        _require_same(place, recorded["network_sha256"], network, recorded_file_digest(network))
    return Metadata.from_json(json.dumps(recorded["metadata"]), str(place))


def _require_same(place: Path, expected: str, other: Path, found: str | None) -> None:
    if expected != found:
        raise ArtifactCorruptError(
            f"{place} belongs to the artifact with SHA-256 {expected[:12]}, and {other} to {str(found)[:12]}: write "
            "the repository again with 'maskrcnn export triton', and publish all of its models together"
        )


def _check_tensors(triton: Any) -> None:
    """Send known values to Triton and back through DLPack, and compare what Triton's own conversion returns.

    Raises:
        EngineError: DLPack returns other values.
    """
    known = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    sent = to_tensor(triton, "known", known)
    if not np.array_equal(np.from_dlpack(sent), known):
        raise EngineError(
            f"this Triton's Python backend returns other values than it was given (NumPy {np.__version__}): use a "
            "newer Triton"
        )
    try:
        converted = np.array_equal(sent.as_numpy(), known)
    except Exception:  # noqa: BLE001  (whatever its bindings raise)
        converted = False
    if not converted:
        triton.Logger.log_warn(
            f"as_numpy of this Triton's Python backend does not work with NumPy {np.__version__}: these models do not "
            "use it, other models may"
        )
