"""Cut the golden files of the tests out of the full set, which is too large to commit.

    python tests/golden/make.py ../shared

The argument is the folder with `goldens/`; the result is the same to the byte on every run.
"""

import json
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))

import golden  # noqa: E402

Arrays = dict[str, NDArray[np.generic]]

ROI_CHANNELS = 3

INFER_WHOLE = (
    "config_json",
    "window",
    "rpn_rois",
    "detections",
    "roi_touches_far_border",
    "unstable_proposal_rows",
    "unstable_head_rows",
    "unstable_detection_rows",
    "unstable_mask_rows",
)
TRAIN_WHOLE = (
    "in_rpn_match",
    "in_rpn_bbox",
    "in_gt_class_ids",
    "in_gt_boxes",
    "in_gt_masks",
    "in_image_meta",
    "in_pinned_proposals",
    "out_target_rois",
    "out_target_class_ids",
    "out_target_bbox",
    "out_target_mask",
    "out_mrcnn_class_logits",
    "out_mrcnn_bbox",
    "out_rpn_class_loss",
    "out_rpn_bbox_loss",
    "out_mrcnn_class_loss",
    "out_mrcnn_bbox_loss",
    "out_mrcnn_mask_loss",
    "grad_total_loss",
    "grad_global_norm",
    "grad_weight_names",
    "grad_norms",
    "grad_sample_offsets",
    "sgd_losses_before_each_step_and_after_last",
    "sgd_weights_after3_samples",
)
TRAIN_ANCHOR_STEP = 7
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


class Steps(NamedTuple):
    """Every N-th entry is kept. The anchors' step is not a multiple of the 3 ratios per cell."""

    anchor: int
    channel: int
    mask: int = 1
    head: int = 1


def infer(full: Arrays, steps: Steps) -> Arrays:
    """What a comparison of every stage of a small run needs; samples of large tensors."""
    kept = sampled_stages(full | {"rpn_fg_scores": full["rpn_class"][..., 1]}, steps)
    kept["anchors"] = full["anchors"][:1, :: steps.anchor]
    class_ids = full["detections"][..., 4].astype(int)[..., None, None, None]
    masks = np.take_along_axis(full["mrcnn_mask"], class_ids, axis=-1)[..., 0]
    kept["mrcnn_mask_of_class"] = masks[..., :: steps.mask, :: steps.mask]
    kept["resized_image"] = full["resized_image"]
    kept["molded_image_crc32"] = np.uint32(zlib.crc32(full["molded_image_f32"].tobytes()))
    return kept


def infer_coco(full: Arrays) -> Arrays:
    """The same for the large run. Its input is stored as the image, see `golden.network_images`."""
    steps = Steps(anchor=97, channel=1, mask=2, head=16)
    kept = sampled_stages(full, steps)
    kept["anchors"] = full["anchors_sample_every_97"]
    kept["mrcnn_mask_of_class"] = full["mrcnn_mask_of_class"][None, :, :: steps.mask, :: steps.mask]
    y1, x1, y2, x2 = full["window"][0]
    below = golden.doubled(full["image"]).astype(int) - full["resized_image"][0, y1:y2, x1:x2]
    kept["image"], kept["doubled_minus_resized_packed"] = full["image"], np.packbits(below)
    if not np.array_equal(golden.network_images(kept), full["resized_image"]):
        raise ValueError("infer_coco: resized_image is not the doubled image less 0 or 1 gray level")
    return kept


def sampled_stages(full: Arrays, steps: Steps) -> Arrays:
    """Entries that the small runs and the large one have in common; final masks are [N, H, W] to compress better."""
    kept = {name: full[name] for name in INFER_WHOLE}
    for name in ("rpn_fg_scores", "rpn_bbox"):
        kept[name] = full[name][:, :: steps.anchor]
    for level in ("P2", "P3", "P4", "P5", "P6"):
        kept[f"{level}_sample"] = full[f"{level}_sample"][..., :: steps.channel]
        kept[f"{level}_stride"] = full[f"{level}_stride"] * (1, 1, steps.channel)
    for name in ("mrcnn_class", "mrcnn_bbox"):
        kept[name] = full[name][:, :: steps.head]
    for name in ("anchor", "head", "mask"):
        kept[f"{name}_step"] = np.int64(getattr(steps, name))
    batch = len(full["window"])
    for image in range(batch):
        suffix = str(image) if batch > 1 else ""
        for name in ("rois", "class_ids", "scores"):
            kept[f"final_{name}{image}"] = full[f"final_{name}{suffix}"]
        shape = full[f"final_masks_shape{suffix}"]
        bits = np.unpackbits(full[f"final_masks_packed{suffix}"])[: np.prod(shape)].reshape(shape)
        kept[f"final_masks_packed{image}"] = np.packbits(np.moveaxis(bits, -1, 0))
        kept[f"image_shape{image}"] = np.array(full[f"image{suffix}"].shape)
    return kept


def images_masks(full: Arrays) -> Arrays:
    """Resizing of images and masks, mini masks, and pasting."""
    kept = {name: array for name, array in full.items() if name not in IMAGES_MASKS_UNUSED}
    kept["unmold_out_packed"] = np.packbits(full["unmold_out"])
    kept["unmold_out_shape"] = np.array(full["unmold_out"].shape)
    return kept


def targets_losses(full: Arrays) -> Arrays:
    """All of it."""
    return full


def train_small(full: Arrays) -> Arrays:
    """Two training images, the RPN's targets in every variant, and the recorded run with samples of the RPN's output.

    The run's masks are those that the loss reads: positive rows (they come first), their own class.
    """
    kept = {name: array for name, array in full.items() if name.startswith(("config_json", "src_", "gt", "rpnt"))}
    kept |= {name: full[name] for name in TRAIN_WHOLE}
    for name in ("out_rpn_class_logits", "out_rpn_bbox"):
        kept[name] = full[name][:, ::TRAIN_ANCHOR_STEP]
    kept["anchor_step"] = np.int64(TRAIN_ANCHOR_STEP)
    positive = (full["out_target_class_ids"] > 0).any(axis=0).sum()
    class_ids = full["out_target_class_ids"][:, :positive, None, None, None]
    masks = np.take_along_axis(full["out_mrcnn_mask"][:, :positive], class_ids, axis=-1)
    kept["out_mrcnn_mask_of_class"] = masks[..., 0]
    mean = json.loads(str(full["config_json"]))["MEAN_PIXEL"]
    images = np.stack([full["gt0_image"], full["gt1_image"]])
    if not np.array_equal((images - np.array(mean)).astype(np.float32), full["in_images_f32"]):
        raise ValueError("train_small: the batch is not the two images less the mean pixel")
    return kept


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


def checksums(weights: list[dict]) -> dict:
    """CRC-32 of every recorded weight, by name, shape ("64x3") and seed."""
    found: dict = {}
    for weight in weights:
        of_shape = found.setdefault(f"{weight['group']}/{weight['name']}", {})
        of_seed = of_shape.setdefault("x".join(map(str, weight["shape"])), {})
        of_seed[str(weight["seed"])] = weight["crc32_of_float32_le"]
    return found


FILES: dict[str, tuple[str, Callable[[Arrays], Arrays]]] = {
    "boxes_seed0.npz": ("iso_boxes_seed0.npz", boxes),
    "proposal_detection_seed0.npz": ("iso_proposal_detection_seed0.npz", proposal_detection),
    "roialign_seed0.npz": ("iso_roialign_seed0.npz", roialign),
    "infer_small_seed0.npz": ("infer_small_seed0.npz", partial(infer, steps=Steps(anchor=7, channel=4))),
    **{
        f"infer_small_{name}_seed0.npz": (
            f"infer_small_{name}_seed0.npz",
            partial(infer, steps=Steps(anchor=13, channel=8, mask=2)),
        )
        for name in ("batch2", "pad64")
    },
    "infer_coco_seed0.npz": ("infer_coco_seed0.npz", infer_coco),
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
    write_json("weights_manifest_small", manifest(inference, training))
    write_json("weights_crc32", checksums(json.loads((goldens / "weights_check.json").read_text())["weights"]))


def write_json(name: str, value: dict) -> None:
    """Write a golden JSON file, without white space."""
    (HERE / f"{name}.json").write_text(json.dumps(value, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
