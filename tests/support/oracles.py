"""Slow, obvious versions of the mathematics, in float64 loops, for the tests to compare with.

Nothing here shares code or structure with the packages. Boxes are y1, x1, y2, x2.
"""

import math

import numpy as np


def iou(a, b):
    """Intersection over union of two boxes; 0 where either has no area."""
    (ay1, ax1, ay2, ax2), (by1, bx1, by2, bx2) = (tuple(map(float, box)) for box in (a, b))
    area_a, area_b = (ay2 - ay1) * (ax2 - ax1), (by2 - by1) * (bx2 - bx1)
    if area_a <= 0 or area_b <= 0:
        return 0.0
    height, width = min(ay2, by2) - max(ay1, by1), min(ax2, bx2) - max(ax1, bx1)
    if height <= 0 or width <= 0:
        return 0.0
    return height * width / (area_a + area_b - height * width)


def encode(box, target):
    """Deltas (dy, dx, log dh, log dw) from one box to another."""
    y1, x1, y2, x2 = map(float, box)
    ty1, tx1, ty2, tx2 = map(float, target)
    height, width, target_height, target_width = y2 - y1, x2 - x1, ty2 - ty1, tx2 - tx1
    dy = ((ty1 + ty2) / 2 - (y1 + y2) / 2) / height
    dx = ((tx1 + tx2) / 2 - (x1 + x2) / 2) / width
    return np.array([dy, dx, math.log(target_height / height), math.log(target_width / width)])


def decode(box, delta):
    """One box moved by (dy, dx, log dh, log dw)."""
    y1, x1, y2, x2 = map(float, box)
    dy, dx, dh, dw = map(float, delta)
    height, width = y2 - y1, x2 - x1
    center_y, center_x = (y1 + y2) / 2 + dy * height, (x1 + x2) / 2 + dx * width
    height, width = height * math.exp(dh), width * math.exp(dw)
    return np.array([center_y - height / 2, center_x - width / 2, center_y + height / 2, center_x + width / 2])


def clip(box, window):
    """One box cut off at a window."""
    y1, x1, y2, x2 = map(float, window)
    low, high = (y1, x1, y1, x1), (y2, x2, y2, x2)
    return np.array([min(max(float(v), a), b) for v, a, b in zip(box, low, high, strict=True)])


def by_score(scores):
    """Indices, best score first; of equal scores the lower index first."""
    return sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))


def nms(boxes, scores, threshold, limit):
    """Greedy suppression: indices kept, best first; only IoU > threshold suppresses."""
    kept = []
    for i in by_score(scores):
        if len(kept) < limit and all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def nms_per_class(boxes, scores, valid, threshold, limit):
    """`nms` within each class, then the best `limit` of all. `valid` is [N, K]; a row may have one class."""
    kept = []
    for k in range(valid.shape[1]):
        rows = [i for i in range(len(boxes)) if valid[i, k]]
        chosen = nms([boxes[i] for i in rows], [scores[i] for i in rows], threshold, limit)
        kept.extend(rows[i] for i in chosen)
    return sorted(kept, key=lambda i: (-float(scores[i]), i))[:limit]


def level_anchors(shape, stride, scale, ratios, anchor_stride):
    """Pixel anchors of one level, row by row, ratios innermost; `shape` is its cells."""
    anchors = []
    for row in range(0, shape[0], anchor_stride):
        for column in range(0, shape[1], anchor_stride):
            for ratio in ratios:
                height, width = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
                y, x = row * stride, column * stride
                anchors.append([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
    return np.array(anchors)


def pyramid_anchors(image_size, strides, scales, ratios, anchor_stride=1):
    """Pixel anchors of all levels."""
    return np.concatenate(
        [
            level_anchors([math.ceil(side / stride) for side in image_size], stride, scale, ratios, anchor_stride)
            for stride, scale in zip(strides, scales, strict=True)
        ]
    )


def normalize(box, image_size):
    """Pixel box, exclusive y2 and x2, to 0..1 over the first to the last pixel."""
    y1, x1, y2, x2 = map(float, box)
    height, width = image_size[0] - 1, image_size[1] - 1
    return np.array([y1 / height, x1 / width, (y2 - 1) / height, (x2 - 1) / width])


def bilinear(feature, y, x):
    """Value [C] of a feature map [H, W, C] at (y, x); beyond its cells the nearest one counts."""
    height, width = feature.shape[:2]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    fy, fx = y - top, x - left
    upper = (1 - fx) * feature[top, left] + fx * feature[top, left + 1]
    lower = (1 - fx) * feature[top + 1, left] + fx * feature[top + 1, left + 1]
    return (1 - fy) * upper + fy * lower


def crop_corners_aligned(feature, box, pool_size):
    """One sample per bin, the first on y1 and the last on y2 of a normalised box."""
    feature = np.asarray(feature, np.float64)
    y1, x1, y2, x2 = map(float, box)
    height, width = feature.shape[0] - 1, feature.shape[1] - 1
    crop = np.empty((pool_size, pool_size, feature.shape[2]))
    for i in range(pool_size):
        for j in range(pool_size):
            y = (y1 + (y2 - y1) * i / (pool_size - 1)) * height
            x = (x1 + (x2 - x1) * j / (pool_size - 1)) * width
            crop[i, j] = bilinear(feature, y, x)
    return crop


def roi_align(feature, box, image_size, pool_size):
    """Mean of 2 x 2 samples per bin; cell i of the feature map has its centre at i + 0.5."""
    feature = np.asarray(feature, np.float64)
    y1, x1, y2, x2 = map(float, box)
    # From normalised (inclusive) to pixels (exclusive), and from pixels to cells.
    rows, columns = feature.shape[0] / image_size[0], feature.shape[1] / image_size[1]
    top, bottom = y1 * (image_size[0] - 1) * rows, (y2 * (image_size[0] - 1) + 1) * rows
    left, right = x1 * (image_size[1] - 1) * columns, (x2 * (image_size[1] - 1) + 1) * columns
    bin_height, bin_width = (bottom - top) / pool_size, (right - left) / pool_size
    crop = np.zeros((pool_size, pool_size, feature.shape[2]))
    for i in range(pool_size):
        for j in range(pool_size):
            for dy in (0.25, 0.75):
                for dx in (0.25, 0.75):
                    y, x = top + (i + dy) * bin_height, left + (j + dx) * bin_width
                    crop[i, j] += bilinear(feature, y - 0.5, x - 0.5) / 4
    return crop


def level(box, image_size):
    """Pyramid level of a normalised box: a square of 224 pixels lies on P4; rounded half to even."""
    y1, x1, y2, x2 = map(float, box)
    area = (y2 - y1) * (x2 - x1) * image_size[0] * image_size[1]
    if area <= 0:
        return 2
    return min(max(4 + round(math.log2(math.sqrt(area) / 224)), 2), 5)


def propose(scores, deltas, anchors, box_std, pre_nms_limit, threshold, count):
    """Proposals [count, 4] of one image, zero rows at the end."""
    best = by_score(scores)[:pre_nms_limit]
    boxes = [clip(decode(anchors[i], deltas[i] * np.asarray(box_std)), (0, 0, 1, 1)) for i in best]
    kept = nms(boxes, [scores[i] for i in best], threshold, count)
    result = np.zeros((count, 4))
    for row, i in enumerate(kept):
        result[row] = boxes[i]
    return result


def detect(
    proposals,
    probs,
    deltas,
    window,
    box_std,
    *,
    min_score,
    threshold,
    count,
    drop_empty=False,
):
    """Detections [n, 6] of one image: box, class id, score; best first."""
    rows = []
    for index, proposal in enumerate(proposals):
        class_id = int(np.argmax(probs[index]))  # the first of equal ones
        score = float(probs[index][class_id])
        box = clip(decode(proposal, deltas[index][class_id] * np.asarray(box_std)), window)
        empty = box[2] <= box[0] or box[3] <= box[1]
        if class_id > 0 and score >= min_score and not (drop_empty and empty):
            rows.append([*box, class_id, score])
    if not rows:
        return np.zeros((0, 6))
    rows = np.array(rows)
    valid = rows[:, 4:5] == np.arange(1, probs.shape[-1])
    return rows[nms_per_class(rows[:, :4], rows[:, 5], valid, threshold, count)]


def boxes_to_input(letterbox, boxes):
    """Boxes [N, 4] x1, y1, x2, y2 from picture pixels to input pixels: the inverse of `Letterbox.boxes_to_image`."""
    ends = np.array([0, 0, 1, 1])
    offset = np.tile(letterbox.offset[::-1], 2)
    sizes = [np.tile(size[::-1], 2).astype(float) for size in (letterbox.image_size, letterbox.resized_size)]
    image, resized = sizes
    with np.errstate(divide="ignore", invalid="ignore"):
        stretched = (np.asarray(boxes, float) - ends) / (image - 1) * (resized - 1) + ends
    return np.where(image > 1, stretched, boxes * resized) + offset
