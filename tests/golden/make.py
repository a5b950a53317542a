"""Cut the golden files of the tests out of the full set, which is too large to commit.

    python tests/golden/make.py ../shared

The argument is the folder with `goldens/`; the result is the same to the byte on every run.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]

HERE = Path(__file__).parent

# Every n-th anchor, in the anchors and in the RPN's output; not a multiple of the ratios per cell.
ANCHOR_STEP = 7
FEATURE_CHANNEL_STEP = 4
ROI_CHANNELS = 3

INFER_SMALL_WHOLE = (
    "config_json",
    "image",
    "resized_image",
    "window",
    "rpn_rois",
    "mrcnn_class",
    "mrcnn_bbox",
    "detections",
    "final_rois",
    "final_class_ids",
    "final_scores",
    "final_masks_packed",
    "final_masks_shape",
    "roi_touches_far_border",
    "unstable_proposal_rows",
    "unstable_head_rows",
    "unstable_detection_rows",
    "unstable_mask_rows",
)
IMAGES_MASKS_UNUSED = (
    "image_meta",
    "mold_image",
    "unmold_image",
    "unmold_out",
    "utils_resize_float",
    "resize2_image",
)


def boxes(full: Arrays) -> Arrays:
    """All of it."""
    return full


def proposal_detection(full: Arrays) -> Arrays:
    """All of it."""
    return full


def metrics(full: Arrays) -> Arrays:
    """All of it."""
    return full


def roialign(full: Arrays) -> Arrays:
    """Two image shapes of three, which use every level between them, and half of the channels."""
    kept = {name: array for name, array in full.items() if "_256_" not in name}
    for name, array in kept.items():
        if name.rsplit("_", 1)[1] in ("pool7", "pool14", "P2", "P3", "P4", "P5"):
            kept[name] = array[..., :ROI_CHANNELS]
    return kept


def infer_small(full: Arrays) -> Arrays:
    """What comparing every stage needs; of large tensors samples."""
    kept = {name: full[name] for name in INFER_SMALL_WHOLE}
    for name in ("anchors", "rpn_class", "rpn_bbox"):
        kept[name] = full[name][:, ::ANCHOR_STEP]
    for level in ("P2", "P3", "P4", "P5", "P6"):
        kept[f"{level}_sample"] = full[f"{level}_sample"][..., ::FEATURE_CHANNEL_STEP]
        kept[f"{level}_stride"] = full[f"{level}_stride"] * (1, 1, FEATURE_CHANNEL_STEP)
    class_ids = full["detections"][..., 4].astype(int)[..., None, None, None]
    kept["mrcnn_mask_of_class"] = np.take_along_axis(full["mrcnn_mask"], class_ids, axis=-1)[..., 0]
    kept["anchor_step"] = np.int64(ANCHOR_STEP)
    return kept


def images_masks(full: Arrays) -> Arrays:
    """Resizing of pictures and masks, mini masks, and pasting."""
    kept = {name: array for name, array in full.items() if name not in IMAGES_MASKS_UNUSED}
    kept["unmold_out_packed"] = np.packbits(full["unmold_out"])
    kept["unmold_out_shape"] = np.array(full["unmold_out"].shape)
    return kept


def targets_losses(full: Arrays) -> Arrays:
    """All of it."""
    return full


def train_small(full: Arrays) -> Arrays:
    """The two training pictures, what the original makes of them, and the RPN's targets in every variant."""
    return {name: array for name, array in full.items() if name.startswith(("config_json", "src_", "gt", "rpnt"))}


def manifest(inference: dict, training: dict) -> dict:
    """Layers and weights of the small model's file; training mode differs in its layers only."""
    return {
        "backend": inference["backend"],
        "keras_version": inference["keras_version"],
        "layer_names": inference["layer_names"],
        "training_layer_names": training["layer_names"],
        "weights": {
            group["name"]: {weight["name"]: weight["shape"] for weight in group["weights"]}
            for group in inference["groups"]
            if group["weights"]
        },
    }


FILES: dict[str, tuple[str, Callable[[Arrays], Arrays]]] = {
    "boxes_seed0.npz": ("iso_boxes_seed0.npz", boxes),
    "proposal_detection_seed0.npz": ("iso_proposal_detection_seed0.npz", proposal_detection),
    "roialign_seed0.npz": ("iso_roialign_seed0.npz", roialign),
    "infer_small_seed0.npz": ("infer_small_seed0.npz", infer_small),
    "targets_losses_seed0.npz": ("iso_targets_losses_seed0.npz", targets_losses),
    "train_small_seed0.npz": ("train_small_seed0.npz", train_small),
    "images_masks_seed0.npz": ("iso_images_masks_seed0.npz", images_masks),
    "metrics_seed0.npz": ("iso_metrics_seed0.npz", metrics),
}


def main(shared: Path) -> None:
    """Write every golden file beside this script."""
    goldens = shared / "goldens"
    for name, (source, cut) in FILES.items():
        with np.load(goldens / "open" / source) as full:
            np.savez_compressed(HERE / name, **cut(dict(full)))
    inference, training = (
        json.loads((goldens / f"weights_manifest_{name}.json").read_text()) for name in ("small", "small_training")
    )
    text = json.dumps(manifest(inference, training), separators=(",", ":"))
    (HERE / "weights_manifest_small.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
