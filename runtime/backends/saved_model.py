"""TensorFlow SavedModel. The only file here that imports TensorFlow."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from runtime.artifact import OUTPUT_NAMES
from runtime.backends import Arrays, Placement, check_engine
from runtime.errors import ArtifactError, DeviceError, MissingPackageError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, when TensorFlow is imported

try:
    import tensorflow as tf
except ImportError as error:
    raise MissingPackageError("tensorflow", "tf", "running a SavedModel artifact") from error

_logger = logging.getLogger(__name__)


class SavedModelBackend:
    """A restored function on one device; anything else than the asked device is an error.

    Args:
        path: The SavedModel folder.
        kind: "auto", "cpu" or "cuda".
        index: Of the CUDA device.
        minimum_version: Lowest TensorFlow that reads the folder.

    Raises:
        DeviceError: CUDA was asked for and cannot be used.
        ArtifactError: TensorFlow is too old, or refuses the folder.
    """

    def __init__(self, path: Path, kind: str, index: int, minimum_version: str | None) -> None:
        check_engine(path, "tensorflow", tf.__version__, minimum_version)
        self._path = path
        self.device = _choose(kind, index)
        self._tf_device = "/CPU:0" if self.device == "cpu" else f"/GPU:{index}"
        self._module = self._load()

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph."""
        return self._run(self._module, inputs)

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run once with partition graphs recorded, and count nodes per device."""
        # TensorFlow has no public call for where the nodes of a function were executed.
        from tensorflow.python.eager import context  # noqa: PLC0415

        module = self._load()  # the partition graphs of a function are recorded in its first run only
        recorder = context.context()
        recorder.enable_run_metadata()
        try:
            recorder.export_run_metadata()  # drops what other functions left there
            self._run(module, inputs)
            metadata = recorder.export_run_metadata()
        finally:
            recorder.disable_run_metadata()
        counts: Counter[tuple[str, str]] = Counter()
        for graph in metadata.partition_graphs:
            for node in graph.node:
                if node.device and node.op not in ("Const", "NoOp", "_Arg", "_Retval"):
                    counts[node.device.rsplit("/", 1)[-1].removeprefix("device:"), node.op] += 1
        return Placement(self.device, dict(counts))

    def _load(self) -> Any:
        try:
            with tf.device(self._tf_device):
                return tf.saved_model.load(str(self._path))
        except Exception as error:
            reason = str(error).split("\n")[0]
            raise ArtifactError(f"tensorflow {tf.__version__} refuses {self._path}: {reason}") from error

    def _run(self, module: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        # The restored function checks its arguments; the signature would abort the process on a wrong rank.
        with tf.device(self._tf_device):
            outputs = module.detect(**{k: tf.convert_to_tensor(v) for k, v in inputs.items()})
        return {name: outputs[name].numpy() for name in OUTPUT_NAMES}


def _choose(kind: str, index: int) -> str:
    if kind == "cpu":
        return "cpu"
    devices = tf.config.list_physical_devices("GPU")
    if index < len(devices):
        try:
            tf.config.experimental.set_memory_growth(devices[index], True)
        except RuntimeError:  # the device is in use already, with whatever was set then
            _logger.debug("memory growth of %s stays as it is", devices[index].name)
        return f"cuda:{index}"
    if kind == "cuda":
        why = "was built without CUDA" if not tf.test.is_built_with_cuda() else f"sees {len(devices)} CUDA devices"
        raise DeviceError(
            f"device 'cuda:{index}' was asked for, but tensorflow {tf.__version__} {why}: "
            "pip install 'maskrcnn-export[tf-gpu]', or see 'maskrcnn-export doctor'"
        )
    _logger.info("device 'auto': running on the CPU, TensorFlow sees no CUDA device")
    return "cpu"
