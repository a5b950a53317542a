"""Results of genuine torchvision and Detectron2 (`goldens/families` of the shared folder), if it is there."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(os.environ.get("MASKRCNN_SHARED", Path(__file__).parents[3] / "shared")) / "goldens" / "families"
needs_goldens = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is missing: set MASKRCNN_SHARED")


def recipe():
    """The module that makes weights, images and the places of sampled tensors."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    import recipe

    return recipe


class Case:
    """One golden case: small tensors whole, others where `recipe.sample_indices` says."""

    def __init__(self, name):
        self.facts = json.loads((FOLDER / "open" / f"{name}.json").read_text())
        with np.load(FOLDER / "open" / f"{name}.npz") as arrays:
            self.arrays = dict(arrays)

    def __getitem__(self, name):
        return self.arrays[name]

    def shape(self, name):
        """Shape of the whole tensor."""
        return tuple(self.facts["tensors"][name]["shape"])

    def sampled(self, name, tensor):
        """The values of a whole tensor, in the source's layout, where the golden file has them."""
        assert tensor.shape == self.shape(name)
        count = 4096
        return np.asarray(tensor).reshape(-1)[recipe().sample_indices(name, tensor.size, count)]


def yx(boxes):
    """Swap x and y of boxes or deltas [..., 4]."""
    return np.asarray(boxes)[..., [1, 0, 3, 2]]


def roi_inputs(seed=11):
    """The inputs of the ROIAlign goldens: features [1, 23, 37, 4] and boxes [60, 4] y1, x1, y2, x2 at stride 4."""

    def uniform(key, shape, low, high):
        draws = recipe().draws(key, shape, seed) / recipe().B
        return (low + (draws + 1.0) / 2 * (high - low)).astype(np.float32)

    height, width = 23 * 4, 37 * 4
    features = uniform("ops/features", (1, 4, 23, 37), -1, 1).transpose(0, 2, 3, 1)
    u = uniform("ops/boxes", (60, 4), 0.0, 1.0)
    x, y, w, h = u[:, 0] * width, u[:, 1] * height, u[:, 2] ** 2 * width, u[:, 3] ** 2 * height
    boxes = np.stack([x, y, np.minimum(x + w, width), np.minimum(y + h, height)], axis=1)
    boxes[:8] = [
        [0, 0, width, height],
        [0, 0, 1, 1],
        [width - 1, height - 1, width, height],
        [width - 0.25, 8, width, 60],
        [8, height - 2, 60, height],
        [0, 0, width, 0.5],
        [3, 3, 3.001, 3.001],
        [width - 3, 0, width, height],
    ]
    return np.ascontiguousarray(features), yx(boxes.astype(np.float32))


def roi_results(aligned, ratio):
    """Crops [60, 7, 7, 4] of `roi_inputs` by torchvision."""
    with np.load(FOLDER / "open" / "ops.npz") as arrays:
        return arrays[f"roi_align/aligned={aligned}/sampling={ratio}"].transpose(0, 2, 3, 1)


# The networks of the golden cases: their settings, weights, inputs and crops.
TORCH = {
    "mean_pixel": (123.675, 116.28, 103.53),
    "padding": "mean",
    "backbone": "resnet50",
    "backbone_padding": "symmetric",
    "batch_norm_epsilon": 1e-5,
    "bias_before_batch_norm": False,
    "head_batch_norm": False,
    "objectness": "sigmoid",
    "rpn_channels": 256,
}
TORCHVISION = TORCH | {"stride_in_1x1": False, "pixel_std": (58.395, 57.12, 57.375)}
TORCHVISION_2 = TORCHVISION | {
    "head_batch_norm": True,
    "fpn_batch_norm": True,
    "rpn_convolutions": 2,
    "box_head_convolutions": 4,
    "box_head_layers": 1,
}
# Settings of the network and the list of weights, by the beginning of a case's name.
KINDS = {"v1": TORCHVISION, "v2": TORCHVISION_2, "d2": TORCH}
_OF_CLASSES = ("cls_score", "bbox_pred", "mask_fcn_logits", "mask_head.predictor")


def class_names(name):
    """Names for the classes of a case, background first."""
    count = Case(name).facts["classes"] + name.startswith("d2")
    return ("BG", *(f"class {number}" for number in range(1, count)))


def weights(name):
    """The weights of a case's network, by the names of its program."""
    described = Case(name).facts
    foreground_only = name.startswith("d2")
    manifest = json.loads((FOLDER / f"manifest_{name[:2]}.json").read_text())
    state = {}
    for key, shape in manifest.items():
        if "roi_heads" in key and any(part in key for part in _OF_CLASSES):
            first = described["classes"] * (4 if "bbox_pred" in key else 1)
            shape = [first + (foreground_only and "cls_score" in key), *shape[1:]]  # noqa: PLW2901
        state[key] = recipe().weight(key, shape, described["seed"], described["background"], foreground_only)
    return state


def float_input(name):
    """The resized and padded image float32 [1, H, W, 3], RGB, 0 to 255, and its height and width without padding."""
    case = Case(name)
    height, width = (int(side) for side in case["resized_size"])
    if "resized" in case.arrays:
        resized = case["resized"][..., ::-1].astype(np.float32)
    else:
        picture = recipe().picture(name, *case.facts["picture"], case.facts["seed"])
        resized = _bilinear(_bilinear(picture.astype(np.float64), height, 0), width, 1)
    padded = np.zeros((1, *(-(-side // 32) * 32 for side in (height, width)), 3), np.float32)
    padded[0, :height, :width] = resized
    return padded, (height, width)


def _bilinear(values, size, axis):
    """Half-pixel centers computed in float32, repeated edges, no anti-aliasing."""
    length = values.shape[axis]
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(length / size) - np.float32(0.5)
    at = np.clip(at, 0, length - 1)
    low = at.astype(int)
    shape = [-1 if a == axis else 1 for a in range(values.ndim)]
    share = (at - low).reshape(shape)
    return values.take(low, axis) * (1 - share) + values.take(np.minimum(low + 1, length - 1), axis) * share


def roi_align(features, boxes, bins, aligned):
    """Crops [N, bins, bins, C] of boxes x1, y1, x2, y2 in input pixels from P2..P5, each [H, W, C].

    Unaligned with 2 x 2 samples per bin as in torchvision, or aligned with as many as cells as in Detectron2.
    """
    crops = []
    for box in np.asarray(boxes, np.float32):
        side = np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        level = np.log2(side / 224 + 1e-8) if aligned else np.log2(side / 224) + 1e-6
        place = int(np.clip(np.floor(4 + level), 2, 5)) - 2
        level = features[place].astype(np.float64)
        x1, y1, x2, y2 = box.astype(np.float64) / (4 * 2**place) - (0.5 if aligned else 0.0)
        rows, columns = (
            _bin_weights(first, last if aligned else max(last, first + 1), bins, length, aligned)
            for first, last, length in ((y1, y2, level.shape[0]), (x1, x2, level.shape[1]))
        )
        crops.append(np.einsum("ay,yxc,bx->abc", rows, level, columns, optimize=True))
    return np.stack(crops).astype(np.float32)


def _bin_weights(first, last, bins, length, adaptive):
    """Mean weights [bins, length] of the samples of each bin; beyond one cell outside, a sample is zero."""
    samples = int(np.ceil((last - first) / bins)) if adaptive else 2
    found = np.zeros((bins, length))
    for place in range(bins):
        for sample in range(samples):
            at = first + (last - first) / bins * (place + (sample + 0.5) / samples)
            if not -1 <= at <= length:
                continue
            at = min(max(at, 0), length - 1)
            low = int(at)
            found[place, low] += (1 - (at - low)) / samples
            found[place, min(low + 1, length - 1)] += (at - low) / samples
    return found
