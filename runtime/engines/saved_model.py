"""TensorFlow SavedModel: the only file of the package that imports TensorFlow."""

import logging
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from runtime.artifact import (
    BORDER_PREFIX,
    INPUT_NAMES,
    NMS_FIRST,
    NMS_LAST,
    NUM_DETECTIONS,
    OUTPUT_NAMES,
    SIGNATURE,
    Metadata,
)
from runtime.artifact_files.gpu_kernels import without_gpu_kernel
from runtime.artifact_files.read import recorded_digest, require_same
from runtime.artifact_files.savedmodel_scan import check_savedmodel
from runtime.engines.errors import is_engines_own
from runtime.engines.inputs import check_graph_inputs
from runtime.engines.options import EngineOptions
from runtime.engines.outputs import check_outputs
from runtime.engines.protocol import Arrays
from runtime.engines.suppression import continue_suppression
from runtime.engines.versions import check_engine
from runtime.errors import ArtifactError, DeviceError, MissingPackageError
from runtime.one_line import utf8_path
from runtime.placement import RECEIVING, Placement

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, when TensorFlow is imported

try:
    import tensorflow as tf
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
except ImportError as error:
    raise MissingPackageError("tensorflow", "tf", "running a SavedModel artifact") from error

_DESCRIPTION = "saved_model.pb"
_logger = logging.getLogger(__name__)


class SavedModelBackend:
    """A restored function on the requested device, and on no other, except for kind "auto"; see `open_backend`.

    Options for threads and the GPU apply to all of TensorFlow in this process, and are refused if it is too late for
    them.
    """

    def __init__(self, path: Path, metadata: Metadata, kind: str, index: int, options: EngineOptions) -> None:
        check_engine(path, "tensorflow", tf.__version__, metadata.engine_minimum.get("tensorflow"))
        options.refuse(("cache", "cuda_graph"), f"which is for ONNX artifacts, but {path} is a SavedModel")
        self._path, self._metadata, self._digest = path, metadata, recorded_digest(path)
        description = _description(path)
        check_savedmodel(description, path)
        _set_threads(options.threads)
        self.device = _choose(kind, index, options)
        if self.device != "cpu":
            _require_kernels(kind, self.device, without_gpu_kernel(g.graph_def for g in description.meta_graphs), path)
            _prepare_gpu(index, options)
        self._finishing = threading.Lock()
        self._finisher: FunctionStages | None = None
        self._tf_device = "/CPU:0" if self.device == "cpu" else f"/GPU:{index}"
        self._module = self._load()
        check_graph_inputs(_inputs_of(self._module, path), metadata, path)

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph."""
        outputs = self._run(self._module, inputs)
        if self._metadata.target != "cpu" and outputs[NUM_DETECTIONS].min() < 0:
            outputs = self._finish(inputs)
        check_outputs(outputs, inputs, self._metadata, self._path)
        return outputs

    def explain(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Placement:
        """Run twice in a session of its own and report the second run, which is traced."""
        require_same(self._path, self._digest)
        # Only sessions have a public interface for where the nodes of a function ran, and for how long.
        v1 = tf.compat.v1
        options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
        record = v1.RunMetadata()
        with v1.Session(graph=tf.Graph(), config=v1.ConfigProto(allow_soft_placement=True)) as session:
            with _quiet(), tf.device(self._tf_device):
                description = v1.saved_model.load(session, [tf.saved_model.SERVING], _name(self._path))
            signature = description.signature_def[SIGNATURE]
            feeds = {signature.inputs[name].name: array for name, array in inputs.items()}
            fetches = [signature.outputs[name].name for name in OUTPUT_NAMES]
            session.run(fetches, feeds)
            session.run(fetches, feeds, options=options, run_metadata=record)
        return _placement(self.device, record)

    def borders(self, inputs: Mapping[str, npt.NDArray[Any]], places: Mapping[str, Any]) -> Arrays:  # noqa: ARG002
        """Run once and return the tensors between the stages."""
        stages = self._stages()
        return stages.run(inputs, [name for name in stages.names if name not in (NMS_FIRST, NMS_LAST)])

    def _finish(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        with self._finishing:
            self._finisher = self._finisher or self._stages()
            return continue_suppression(self._finisher, inputs, self._path)

    def _stages(self) -> "FunctionStages":
        return FunctionStages(self._module.signatures[SIGNATURE], self._tf_device)

    def _load(self) -> Any:
        name = _name(self._path)
        try:
            with tf.device(self._tf_device):
                return tf.saved_model.load(name)
        except Exception as error:
            if not is_engines_own(error):
                raise
            reason = str(error).split("\n")[0]
            raise ArtifactError(f"tensorflow {tf.__version__} refuses {self._path}: {reason}") from error

    def _run(self, module: Any, inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        # The restored function checks its arguments; the signature would abort the process on a wrong rank.
        with tf.device(self._tf_device):
            outputs = module.detect(**{k: tf.convert_to_tensor(v) for k, v in inputs.items()})
        return {name: outputs[name].numpy() for name in OUTPUT_NAMES}


class FunctionStages:
    """A `StageCutter` for a TensorFlow function with the exporter's identities between its stages.

    Args:
        function: A concrete function with the artifact's inputs, traced by the exporter or restored from a SavedModel.
        device: TensorFlow's name of the device to run on.
    """

    def __init__(self, function: Any, device: str = "/CPU:0") -> None:
        frozen = convert_variables_to_constants_v2(function)
        definition = frozen.graph.as_graph_def()
        # A restored function is inlined under a scope of its own, so tensors are found by the last part of their names;
        # names of a signature's inputs begin with its key.
        found = {
            node.name.rsplit("/", 1)[-1].removeprefix(f"{SIGNATURE}_"): f"{node.name}:0"
            for node in definition.node
            if node.op in ("Identity", "Placeholder")
        }
        with tf.Graph().as_default() as graph, tf.device(device):
            tf.import_graph_def(definition, name="")
        # A session can be fed any tensor; a function would need a copy of the graph for each cut, which takes seconds.
        self._session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(allow_soft_placement=True))
        self.names = tuple(name.removeprefix(BORDER_PREFIX) for name in found if name.startswith(BORDER_PREFIX))
        self._places = dict(
            zip(sorted(function.structured_outputs), (tensor.name for tensor in frozen.outputs), strict=True)
        )
        self._places |= {name: found[BORDER_PREFIX + name] for name in self.names} | {
            name: found[name]
            for name in INPUT_NAMES
            if name in found  # thresholds may be constants
        }

    @classmethod
    def of_savedmodel(cls, path: Path) -> Self:
        """Cut the function of a SavedModel folder, on the CPU."""
        loaded = tf.saved_model.load(_name(path))  # owns the variables until the graph is frozen
        return cls(loaded.signatures[SIGNATURE])

    def run(self, feeds: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> Arrays:
        """Compute stage boundary tensors."""
        given = {self._places[name]: array for name, array in feeds.items() if name in self._places}
        return dict(zip(names, self._session.run([self._places[name] for name in names], given), strict=True))


def load_checked(path: Path) -> Any:
    """Load a SavedModel after a look at what it contains.

    Raises:
        ArtifactError: It contains what no export needs, or its name is not UTF-8.
    """
    check_savedmodel(_description(path), path)
    return tf.saved_model.load(_name(path))


def _name(path: Path) -> str:
    name = utf8_path(path)
    if name is None:
        raise ArtifactError(f"{path} has a name that is not UTF-8, which TensorFlow cannot open: rename it")
    return name


def _description(path: Path) -> Any:
    """Parse `saved_model.pb`, which runs nothing; if it exists, TensorFlow reads no other spelling of the name."""
    file = path / _DESCRIPTION
    if not file.is_file():
        raise ArtifactError(f"{path} has no {_DESCRIPTION}: copy or export it again")
    try:
        return SavedModel.FromString(file.read_bytes())
    except Exception as error:  # protobuf has exceptions of its own
        if not is_engines_own(error):
            raise
        raise ArtifactError(
            f"tensorflow {tf.__version__} refuses {path}: {_DESCRIPTION} is damaged: copy or export it again"
        ) from error


def _inputs_of(module: Any, path: Path) -> dict[str, tuple[str, int | None]]:
    """Return dtype and rank of the inputs of the function that is run."""
    signature = module.signatures.get(SIGNATURE)
    if signature is None or not hasattr(module, "detect"):
        raise ArtifactError(f"{path} has no function to run, because another tool rewrote it: export it again")
    return {name: (spec.dtype.name, spec.shape.rank) for name, spec in signature.structured_input_signature[1].items()}


def _placement(device: str, record: Any) -> Placement:
    """Count nodes and add up their times by device and operator type."""
    nodes = [node for graph in record.partition_graphs for node in graph.node]
    operators = {node.name: (node.op, node.device) for node in nodes}
    # Copies between devices have no times.
    counts = Counter((_place(node.device), node.op) for node in nodes if node.op in RECEIVING)
    milliseconds = defaultdict(float, dict.fromkeys(counts, 0.0))
    for stats in record.step_stats.dev_stats:
        for node in stats.node_stats:
            operator, where = operators.get(node.node_name, ("NoOp", ""))
            if where and operator not in ("Const", "NoOp", "_Arg", "_Retval"):
                key = _place(where), operator
                counts[key] += 1
                milliseconds[key] += (node.op_end_rel_nanos - node.op_start_rel_nanos) / 1e6
    return Placement(device, dict(counts), dict(milliseconds))


def _place(device: str) -> str:
    """Return the last part of the name of a device, such as "GPU:0"."""
    return device.rsplit("/", 1)[-1].removeprefix("device:")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence TensorFlow's deprecation warning for the only loader that sessions have."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _set_threads(threads: int | None) -> None:
    """Set TensorFlow's number of threads, which is fixed once it has computed anything; None changes nothing."""
    threading = tf.config.threading
    if threads is None or threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise DeviceError(
            f"EngineOptions has threads={threads}, but TensorFlow already runs in this process with another number: "
            "open this predictor before TensorFlow is used, or leave threads out"
        ) from error


def _choose(kind: str, index: int, options: EngineOptions) -> str:
    if kind == "cpu":
        options.refuse_gpu()
        return "cpu"
    devices = tf.config.list_physical_devices("GPU")
    if index < len(devices):
        return f"cuda:{index}"
    if kind == "cuda":
        why = "was built without CUDA" if not tf.test.is_built_with_cuda() else f"finds {len(devices)} CUDA devices"
        raise DeviceError(
            f"device 'cuda:{index}' was requested, but tensorflow {tf.__version__} {why}: "
            "pip install 'maskrcnn-export[tf-gpu]', or see 'maskrcnn doctor'"
        )
    options.refuse_gpu()
    _logger.info("device 'auto': running on the CPU, because TensorFlow finds no CUDA device")
    return "cpu"


def _require_kernels(kind: str, device: str, missing: Sequence[str], path: Path) -> None:
    """Refuse a GPU for a graph with operators that TensorFlow would run on the CPU; with "auto", warn."""
    if not missing:
        return
    what = f"TensorFlow has no GPU kernel for {', '.join(missing)} of {path}"
    advice = "export the model with 'maskrcnn export savedmodel --target cuda'"
    if kind != "auto":
        raise DeviceError(
            f"device {device!r} was requested, but {what}, and would run it on the CPU: {advice}, or use device 'auto'"
        )
    _logger.warning("device 'auto': running on %s, but in part on the CPU, because %s: %s", device, what, advice)


def _prepare_gpu(index: int, options: EngineOptions) -> None:
    _set_memory(tf.config.list_physical_devices("GPU")[index], options.gpu_memory_limit)
    tf.config.experimental.enable_tensor_float_32_execution(options.tf32)


def _set_memory(device: Any, limit: int | None) -> None:
    """Let a device allocate memory as needed, up to a limit in bytes."""
    if limit is None:
        try:
            tf.config.experimental.set_memory_growth(device, True)
        except (RuntimeError, ValueError):  # already in use, or limited
            _logger.debug("memory growth of %s is unchanged", device.name)
        return
    megabytes = limit / 2**20  # the unit of TensorFlow
    current = tf.config.get_logical_device_configuration(device)
    if current and current[0].memory_limit == megabytes:
        return
    try:
        wanted = tf.config.LogicalDeviceConfiguration(memory_limit=megabytes)
        tf.config.set_logical_device_configuration(device, [wanted])
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"EngineOptions has gpu_memory_limit={limit}, but TensorFlow already uses {device.name} without it: "
            "open this predictor before TensorFlow is used, or leave gpu_memory_limit out"
        ) from error
