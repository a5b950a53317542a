"""A version folder of TensorFlow Serving: the SavedModel with a signature that its server can batch, and warmed up."""

from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import LayoutError
from export.serving.networks import picture_batch, require_same, served_note
from export.serving.options import MARKER, MOST_WAITING, allowed_batch, allowed_name, write_marker
from export.serving.text_proto import text_proto
from export.verify.pictures import LetterboxedPicture, verification_pictures
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.tensorflow_import import import_tensorflow
from runtime.artifact import GRAPH_SHA256, IMAGES, NMS_THRESHOLD, SCORE_THRESHOLD, SIGNATURE, WINDOWS, Metadata
from runtime.artifact_files.protobuf import field
from runtime.artifact_files.read import graph_digest, read_metadata, recorded_digest, require_proven
from runtime.artifact_files.savedmodel_folder import EXTRA, seal_folder
from runtime.atomic import atomic_write, check_output
from runtime.errors import ArtifactError
from runtime.predictor import Predictor

BATCHED = "batched"  # the signature
WARM_UP = f"{EXTRA}tf_serving_warmup_requests"
BATCHING = "batching.config"
_MOST_BYTES = 2**28  # of the images of a batch: a warm-up request holds them all, and is copied several times


def write_tfserving_model(
    path: str | Path,
    output: str | Path,
    *,
    max_batch: int | None = None,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> tuple[Path, ...]:
    """Write the folder of a model for TensorFlow Serving, or write nothing.

    `output/1` is the SavedModel with a second signature, `batched`, of `images` and `windows` alone: servers batch no
    signature with scalars. `output/batching.config` is written where requests can be batched: not if images lead to
    inputs of several sizes, which the server would refuse or pad, and not for the target "cuda". The SavedModel is run
    beside the artifact, and all its tensors must be the same, bit for bit; so the artifact's verdict is true of it.

    Args:
        path: A SavedModel artifact.
        output: The folder to write; its name is the model's. An existing folder is replaced only if this function wrote
            it.
        max_batch: Most images that the server runs together, in all at most 256 MiB; None is 8, or fewer if they are
            larger, where it can batch.
        overwrite: Whether an existing folder may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The files and folders for the server.

    Raises:
        LayoutError: An option is out of range, or impossible with this artifact.
        ArtifactError: The artifact cannot be used, or is an `.onnx` file.
        ConversionError: The SavedModel that was written computes other values than the artifact.
        OutputError: The output exists or cannot be written.
    """
    path, output = Path(path), Path(output)
    check_output(output, overwrite=overwrite, directory=True, marker=MARKER)
    name = allowed_name(output.name, "the folder to write has the model's name: give another one")
    metadata = read_metadata(path)
    if metadata.format != "savedmodel":
        raise ArtifactError(
            f"{path} is an .onnx file, and TensorFlow Serving takes SavedModels: give a folder of 'maskrcnn export "
            "savedmodel', or use 'maskrcnn export triton'"
        )
    require_proven(path, metadata)
    (picture, *_) = verification_pictures(None, metadata.image_channels, metadata.resize, metadata.pixels)
    batch = _allowed_batch(path, metadata, max_batch, picture.image.nbytes)
    digest = recorded_digest(path)
    with atomic_write(output, overwrite=overwrite, directory=True, marker=MARKER) as folder:
        version = folder / "1"
        progress("adding the signature for batches")
        _save(path, version, metadata)
        signatures = (BATCHED,) if batch > 1 else (BATCHED, SIGNATURE)  # a server that batches refuses scalars
        _write_warm_up(version / WARM_UP, name, metadata, picture, signatures, sorted({1, batch}))
        note = served_note(path, f"a signature {BATCHED!r} with constant thresholds")
        proof = {**metadata.verdict, GRAPH_SHA256: graph_digest(version)}
        minimum = {"tensorflow": installed_version("tensorflow")}
        served = replace(metadata, edits=(*metadata.edits, note), verdict=proof, engine_minimum=minimum)
        seal_folder(version, served.to_json())
        progress(f"comparing with {path.name}")
        _require_equal(path, version, metadata, picture, batch)
        written = [output / "1"]
        if batch > 1:
            (folder / BATCHING).write_text(_batching(digest, batch), encoding="utf-8")
            written.append(output / BATCHING)
        write_marker(folder, digest, [name])
    return tuple(written)


def _allowed_batch(path: Path, metadata: Metadata, asked: int | None, image_bytes: int) -> int:
    """Return the most images in a batch; 1 where the server cannot batch."""
    fitting = max(_MOST_BYTES // image_bytes, 1)
    several_sizes = metadata.resize.mode != "square"
    if several_sizes and asked is not None and asked > 1:
        raise LayoutError(
            f"{path} has inputs of several sizes (resize mode {metadata.resize.mode!r}), which TensorFlow Serving "
            "cannot batch: leave --max-batch out, or export a model with resize mode 'square'"
        )
    most = allowed_batch(path, metadata, asked, fitting)
    if most > fitting:
        raise LayoutError(
            f"the largest batch is {most}, and its images take {most * image_bytes:,} bytes: the warm-up request holds "
            f"at most {_MOST_BYTES:,} bytes, {fitting} images of this model; give --max-batch {fitting} or less"
        )
    return 1 if several_sizes else most


def _save(path: Path, target: Path, metadata: Metadata) -> None:
    """Save a SavedModel again, with the second signature."""
    import_tensorflow()
    import tensorflow as tf  # noqa: PLC0415

    from runtime.engines.saved_model import load_checked  # noqa: PLC0415

    loaded = load_checked(path)
    arguments: list[Any] = []
    if metadata.thresholds == "inputs":
        arguments = [np.float32(value) for value in (metadata.score_threshold, metadata.nms_threshold)]
    detect = loaded.signatures[SIGNATURE].structured_input_signature[1]

    def batched(images: Any, windows: Any) -> Any:
        return loaded.detect(images, windows, *map(tf.constant, arguments))

    module = tf.Module()
    module.detect = loaded.detect
    module.model_variables = list(loaded.model_variables)
    signature = [tf.TensorSpec.from_spec(detect[name], name=name) for name in (IMAGES, WINDOWS)]
    function = tf.function(batched, input_signature=signature, autograph=False)
    tf.saved_model.save(module, str(target), signatures={SIGNATURE: loaded.detect, BATCHED: function})


def _write_warm_up(
    path: Path,
    name: str,
    metadata: Metadata,
    picture: LetterboxedPicture,
    signatures: Iterable[str],
    batches: Iterable[int],
) -> None:
    """Write requests that the server answers before it is ready: `PredictionLog`s in TensorFlow's record format."""
    import tensorflow as tf  # noqa: PLC0415

    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature in signatures:
            for batch in batches:
                images, windows = picture_batch(picture, batch)
                inputs: dict[str, Any] = {IMAGES: images, WINDOWS: windows}
                if signature == SIGNATURE and metadata.thresholds == "inputs":
                    thresholds = (SCORE_THRESHOLD, NMS_THRESHOLD)
                    inputs |= {each: np.float32(getattr(metadata, each)) for each in thresholds}
                tensors = {key: tf.make_tensor_proto(value).SerializeToString() for key, value in inputs.items()}
                file.write(_prediction_log(name, signature, tensors))


def _prediction_log(model: str, signature: str, tensors: dict[str, bytes]) -> bytes:
    """Encode a `tensorflow.serving.PredictionLog` of a request; its package would bring a client of gRPC for it."""
    specification = field(1, model.encode()) + field(3, signature.encode())  # ModelSpec
    entries = (field(1, key.encode()) + field(2, tensor) for key, tensor in tensors.items())
    request = field(1, specification) + b"".join(field(2, entry) for entry in entries)  # PredictRequest
    return field(6, field(1, request))  # PredictionLog.predict_log.request


def _require_equal(path: Path, version: Path, metadata: Metadata, picture: LetterboxedPicture, batch: int) -> None:
    import tensorflow as tf  # noqa: PLC0415

    from runtime.engines.saved_model import load_checked  # noqa: PLC0415

    several = picture_batch(picture, min(batch, 2))
    one = picture_batch(picture, 1)
    with Predictor(path, "cpu") as proven, Predictor(version, "cpu") as served:
        expected = proven.run(*several)
        require_same(expected, served.run(*several), path)
        require_same(proven.borders(*one), served.borders(*one), path)
    function = load_checked(version).signatures[BATCHED]
    found = function(**{key: tf.constant(value) for key, value in zip((IMAGES, WINDOWS), several, strict=True)})
    require_same(expected, {name: found[name].numpy() for name in metadata.outputs()}, path)


def _batching(digest: str, batch: int) -> str:
    parameters = {
        "max_batch_size": {"value": batch},
        "batch_timeout_micros": {"value": 0},
        "max_enqueued_batches": {"value": max(MOST_WAITING // batch, 1)},
        "num_batch_threads": {"value": 1},
    }
    return f"# maskrcnn_sha256: {digest}\n{text_proto(parameters)}"
