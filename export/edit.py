"""Change names and default thresholds of an artifact, or accept what was changed by hand, and seal it again."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import EditError
from export.publish import check_outputs, publish_edited, write_copy, write_onnx
from maskrcnn.distribution import NAME, own_version
from runtime.artifact import NMS_THRESHOLD, SCORE_THRESHOLD, SIGNATURE, Metadata
from runtime.artifact_files.onnx_file import read_model
from runtime.artifact_files.read import graph_digest, read_metadata
from runtime.errors import ArtifactCorruptError, ArtifactVerdictError

_Write = Callable[[Path, Metadata], None]


def edit_artifact(
    path: str | Path,
    output: str | Path | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    score_threshold: float | None = None,
    nms_threshold: float | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Edit an artifact and seal it again, with a note in its metadata.

    Class names and default thresholds can be changed. What was changed by hand is accepted too, as long as the graph is
    the one that the verdict is about: other metadata, and files in `assets.extra` of a SavedModel. Except for defaults
    of thresholds, which the parity check does not use, the graph stays as it is, and so the verdict stays true.
    Thresholds that are constants cannot be changed.

    Args:
        path: An `.onnx` file or SavedModel folder.
        output: Where to write the result; None replaces the artifact.
        rename: New names of classes by their old ones.
        score_threshold: New value, 0 to 1, in the metadata and, where it has a default, in the graph; None leaves it.
        nms_threshold: See `score_threshold`.
        overwrite: Whether an existing `output` may be replaced.

    Returns:
        What was changed, as in the note.

    Raises:
        EditError: There is no such class, a name is empty or taken, a threshold is out of range or a constant; or
            nothing is left to do.
        ArtifactVerdictError: The verdict failed or belongs to another graph.
        ArtifactError: The artifact cannot be used.
        OutputError: The output exists or cannot be written.
    """
    path, target = Path(path), Path(path if output is None else output)
    metadata, by_hand = _read(path)
    check_outputs(target, metadata.format, overwrite=overwrite or output is None)
    flaw = metadata.verdict_flaw(graph_digest(path))
    if flaw:
        raise ArtifactVerdictError(
            f"{path} cannot be edited: {flaw}. Repeat the parity check with 'maskrcnn verify ARTIFACT --against "
            "CHECKPOINT -o NEW', or export the checkpoint again"
        )
    changes = ["changes by hand accepted"] if by_hand else []
    metadata, renamed = _rename(metadata, rename or {})
    changes += renamed
    thresholds = {SCORE_THRESHOLD: score_threshold, NMS_THRESHOLD: nms_threshold}
    wanted = {name: value for name, value in thresholds.items() if value is not None}
    proven = metadata.verdict  # changed by hand, a constant would differ from the one that was compared
    if metadata.thresholds == "constants" and (
        wanted
        or metadata.nms_threshold != proven.get(NMS_THRESHOLD)
        or metadata.score_threshold != (proven.get(SCORE_THRESHOLD) or metadata.score_threshold)
    ):
        raise EditError(f"the thresholds of {path} are constants in its graph: export the checkpoint again")
    for name, value in wanted.items():
        if not 0 <= value <= 1:
            raise EditError(f"{name} is {value}: expected a number from 0 to 1")
        changes.append(f"{name} {getattr(metadata, name)} became {value}")
    if not changes:
        raise EditError(f"nothing to do: {path} is as it was sealed, and no change was asked for")
    note = f"{datetime.now(UTC).date().isoformat()}, {NAME} {own_version()}: {'; '.join(changes)}"
    config = _config(metadata, wanted)
    changed: dict[str, Any] = {**wanted, "config": config, "edits": (*metadata.edits, note)}
    metadata = replace(metadata, **changed)
    publish_edited(target, metadata, _with_defaults(path, wanted), overwrite=overwrite or output is None)
    return tuple(changes)


def _read(path: Path) -> tuple[Metadata, bool]:
    """Return the metadata, and whether the artifact was changed after it was sealed."""
    try:
        return read_metadata(path), False
    except ArtifactCorruptError:
        return read_metadata(path, verify_digest=False), True


def _rename(metadata: Metadata, names: Mapping[str, str]) -> tuple[Metadata, list[str]]:
    """Return the metadata with new class names, and what was changed."""
    known = metadata.class_names
    for old, new in names.items():
        if old not in known[1:]:
            raise EditError(f"there is no class {old!r}; the artifact has {', '.join(known[1:])}")
        if not new:
            raise EditError(f"the new name of {old!r} is empty")
    renamed = tuple(names.get(name, name) if index else name for index, name in enumerate(known))
    twice = [name for name in renamed if renamed.count(name) > 1]
    if twice:
        raise EditError(f"two classes would have the name {twice[0]!r}: every name may be used once")
    return replace(metadata, class_names=renamed), [f"class {old!r} became {new!r}" for old, new in names.items()]


def _config(metadata: Metadata, thresholds: Mapping[str, float]) -> Mapping[str, Any]:
    """Return the model's configuration, in agreement with the metadata; older artifacts have none."""
    config = deepcopy(dict(metadata.config))
    if config:
        config["model"]["class_names"] = list(metadata.class_names)
        fields = {SCORE_THRESHOLD: "min_score", NMS_THRESHOLD: "nms_threshold"}
        config["detection"] |= {fields[name]: value for name, value in thresholds.items()}
    return config


def _with_defaults(path: Path, thresholds: Mapping[str, float]) -> _Write:
    """Return the function that writes the artifact's graph, with these thresholds where it holds them."""
    if not thresholds:
        return write_copy(path)
    if path.is_dir():
        return _savedmodel_with_defaults(path, thresholds)
    import onnx  # noqa: PLC0415  (not needed for new names)
    from onnx import numpy_helper  # noqa: PLC0415

    model = onnx.load_model_from_string(read_model(path))
    defaults = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in thresholds}
    for name, value in thresholds.items():
        if name in defaults:  # as in older artifacts
            defaults[name].CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), name))
        elif name not in {each.name for each in model.graph.input}:
            raise _no_default(path, name)
    graph = model.SerializeToString()
    return lambda target, metadata: write_onnx(graph, target, metadata)


def _savedmodel_with_defaults(path: Path, thresholds: Mapping[str, float]) -> _Write:
    """Change the defaults of the signature, which servers use, and of the function, which Python calls."""
    from maskrcnn.tensorflow_import import import_tensorflow  # noqa: PLC0415

    import_tensorflow()
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: PLC0415

    saved = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for graph in saved.meta_graphs:
        others = [name for name in graph.signature_def if name != SIGNATURE and graph.signature_def[name].inputs]
        if others:
            raise EditError(
                f"the thresholds of {path} are constants in its signature {others[0]!r}, for a server: edit the "
                "artifact that it was made of, and write the server's folder again"
            )
        places = [graph.signature_def[SIGNATURE].defaults]
        places += [_defaults(node.function.function_spec) for node in graph.object_graph_def.nodes]
        for name, value in thresholds.items():
            tensors = [place[name] for place in places if name in place]
            if not tensors:
                raise _no_default(path, name)
            for tensor in tensors:
                tensor.float_val[:] = [value]
    content, copy = saved.SerializeToString(), write_copy(path)

    def write(target: Path, metadata: Metadata) -> None:
        copy(target, metadata)
        if not metadata.verdict:
            (target / "saved_model.pb").write_bytes(content)

    return write


def _defaults(specification: Any) -> dict[str, Any]:
    """Return the default tensors of a function by the names of its arguments."""
    fields = specification.fullargspec.named_tuple_value.values
    parts = {field.key: field.value for field in fields}
    if "args" not in parts:
        return {}
    names = [value.string_value for value in parts["args"].list_value.values]
    values = [value.tensor_value for value in parts["defaults"].tuple_value.values]
    return dict(zip(names[::-1], values[::-1], strict=False))


def _no_default(path: Path, name: str) -> EditError:
    return EditError(
        f"{name} of {path} cannot be changed, because its graph has no default of that name, so other programs would "
        "not see it: export the checkpoint again with the new value in its configuration"
    )
