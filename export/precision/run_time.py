"""Judge an artifact that an engine computes in another precision than its own, and record that beside it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.errors import ConversionError, PrecisionError
from export.precision.gate import (
    ALLOWED,
    FEWEST,
    MOST_JUDGED,
    detected_dataset,
    judge_precision,
    require_evidence,
    score_masks,
)
from export.verify.pictures import pictures_of_folder
from export.verify.verdict import PrecisionGate
from maskrcnn.callbacks import Say, say_nothing
from maskrcnn.configuration.model import EVALUATION_SCORE_THRESHOLD
from maskrcnn.data.records import Dataset, require_objects
from maskrcnn.evaluation.coco_ap import MAX_DETECTIONS, check_coco
from runtime.artifact import GRAPH_SHA256
from runtime.artifact_files.read import graph_digest, judgement_path, recorded_digest, require_same
from runtime.atomic import atomic_write, check_output
from runtime.engines.options import EngineOptions
from runtime.engines.versions import engine_of
from runtime.one_line import count_of
from runtime.predictor import Predictor


def verify_precision(
    path: str | Path,
    precision: str,
    images: Dataset | str | Path,
    *,
    device: str = "openvino",
    max_drop: float | None = None,
    overwrite: bool = False,
    progress: Say = say_nothing,
) -> PrecisionGate:
    """Compare a float32 artifact, computed in lower precision, with itself in float32; record it if it passes.

    The record goes to `<path>.<precision>.verdict.json`, where `Predictor` looks for it. It is about the artifact's
    graph, whatever is edited later.

    Args:
        path: A float32 `.onnx` artifact with a verdict.
        precision: As in `runtime.EngineOptions`: "bf16".
        images: Annotated images with the model's class ids; or a folder of images with objects, where the float32
            detections are the ground truth. The first 200 are used.
        device: Device that computes in both precisions, as for `Predictor`.
        max_drop: Largest allowed drop of mask AP, 0 to 1. None uses the default of `export.precision.gate.ALLOWED`.
        overwrite: Whether an existing record may be replaced.
        progress: Called with a sentence before each step.

    Returns:
        The comparison, which passed.

    Raises:
        PrecisionError: The accuracy drops too much; nothing is written.
        ConversionError: There are fewer than 6 images, nothing is detected on them, or in float32 the artifact finds
            no more of the objects than `max_drop` allows to lose.
        DatasetError: The annotations have no objects.
        ArtifactError: The artifact cannot be used, is not proven to equal its model, or was replaced meanwhile.
        DeviceError: The device cannot compute the artifact in this precision.
        EngineError: A run failed.
        ImageError: An image cannot be used.
        OutputError: The record exists or cannot be written.
        MissingPackageError: The engine or pycocotools is not installed.
    """
    path = Path(path)
    beside = judgement_path(path, precision)
    check_output(beside, overwrite=overwrite)
    check_coco(MAX_DETECTIONS)
    judged = _judged(images)
    whole = Predictor(path, device)
    digest = recorded_digest(path)
    lowest = max(whole.metadata.lowest_score, min(EVALUATION_SCORE_THRESHOLD, whole.score_threshold))
    lower = Predictor(
        path,
        device,
        score_threshold=lowest,
        require_verdict=False,  # the judgement of the precision is being made
        engine=EngineOptions(precision=precision),
    )
    if isinstance(judged, Dataset):
        against, dataset = "annotations", judged
    else:
        against, dataset = "float32 detections", detected_dataset(whole, judged, whole.score_threshold)
    progress(f"float32 on {whole.device}, {count_of(len(dataset), 'image')}")
    whole.score_threshold = lowest  # average precision needs low scores
    reference = score_masks(whole, dataset)
    allowed = ALLOWED[precision, against] if max_drop is None else max_drop
    require_evidence(reference, allowed)
    progress(f"{precision} on {lower.device}")
    gate = judge_precision(precision, reference, lower, dataset, against, allowed)
    gate = replace(gate, left_in_float=("everything but convolutions, matrix products and what is between them",))
    if not gate.passed:
        raise PrecisionError(gate)
    require_same(path, digest)
    package, version = engine_of("onnx", lower.device)
    record = {**gate.to_dict(), "engine": f"{package} {version} on {lower.device}", GRAPH_SHA256: graph_digest(path)}
    with atomic_write(beside, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return gate


def _judged(images: Dataset | str | Path) -> Dataset | list[Path]:
    """Return the images to compare on; with annotations, as a dataset."""
    found: Sequence[Any] = images.records if isinstance(images, Dataset) else pictures_of_folder(images)
    if len(found) < FEWEST:
        raise ConversionError(
            f"at least {FEWEST} images are needed for the comparison, but there are {len(found)}: give more images"
        )
    kept = found[:MOST_JUDGED]
    if not isinstance(images, Dataset):
        return list(kept)
    judged = replace(images, records=tuple(kept))
    require_objects(judged)
    return judged
