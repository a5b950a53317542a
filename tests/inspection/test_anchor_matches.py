"""Anchors against objects, counted by slow loops."""

import numpy as np

from maskrcnn.inspection.anchor_matches import match_anchors, match_scenes


def slow_iou(anchor, box):
    height = min(anchor[2], box[2]) - max(anchor[0], box[0])
    width = min(anchor[3], box[3]) - max(anchor[1], box[1])
    if height <= 0 or width <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (anchor, box)]
    return height * width / (sum(areas) - height * width)


def slow_matches(config, size, boxes):
    """Match every anchor of every cell in a loop, by the rule of Faster R-CNN."""
    overlaps = []
    for stride, scale in zip(config.model.backbone_strides, config.model.anchor_scales, strict=True):
        for row in range(-(-size[0] // stride)):
            for column in range(-(-size[1] // stride)):
                for ratio in config.model.anchor_ratios:
                    half = scale / ratio**0.5 / 2, scale * ratio**0.5 / 2
                    y, x = row * stride, column * stride
                    anchor = (y - half[0], x - half[1], y + half[0], x + half[1])
                    overlaps.append([slow_iou(anchor, box) for box in boxes])
    overlaps = np.array(overlaps)
    best = overlaps.max(axis=1)
    match = np.where(best < 0.3, -1, 0)
    match[np.any((overlaps == overlaps.max(axis=0)) & (overlaps > 0), axis=1)] = 1
    match[best >= 0.7] = 1
    return match, overlaps.argmax(axis=1)


def test_every_anchor_is_what_the_slow_loop_says(run, sample, demo):
    found = match_anchors(run, sample)
    match, objects = slow_matches(demo.config, run.image.shape, sample.boxes.tolist())
    np.testing.assert_array_equal(found.match, match)
    numbers = found.numbers
    assert numbers["positive"] == int(np.sum(match == 1)) >= len(sample.boxes)
    assert numbers["neutral"] == int(np.sum(match == 0))
    assert numbers["negative"] == int(np.sum(match == -1))
    # A positive anchor should move onto the object that it overlaps most, or whose best anchor it is.
    corners = sample.boxes[:, [1, 0, 3, 2]]
    for row, index in enumerate(np.flatnonzero(match == 1)):
        distances = np.abs(corners - found.moved[row]).max(axis=1)
        assert distances.min() < 0.05
        if (
            match[index] == 1
            and slow_iou(run.to_input(run.anchors[[index]])[0][[1, 0, 3, 2]], sample.boxes[objects[index]]) >= 0.7
        ):
            assert distances.argmin() == objects[index]


def test_used_anchors_are_within_the_limits(run, sample, demo):
    numbers = match_anchors(run, sample).numbers
    limit = demo.config.training.anchors_per_image
    assert numbers["used_positive"] == min(numbers["positive"], limit // 2)
    assert numbers["used_positive"] + numbers["used_negative"] == limit


def test_scenes_show_what_they_say(run, sample):
    matches = match_anchors(run, sample)
    positive, negative, neutral = match_scenes(run, matches, sample)
    objects = len(sample.boxes)
    assert len(positive.shapes) == objects + min(60, matches.numbers["positive"])
    assert all(shape.target is not None for shape in positive.shapes[objects:])
    assert len(negative.shapes) == len(neutral.shapes) == objects + 60
    assert max(positive.to_image().size) == 512 + 64 - 64


def test_a_picture_without_objects_has_no_positive_anchor(run, sample):
    from dataclasses import replace

    empty = replace(sample, class_ids=sample.class_ids[:0], boxes=sample.boxes[:0], crops=[])
    matches = match_anchors(run, empty)
    assert matches.numbers["positive"] == 0
    assert matches.numbers["negative"] == len(run.anchors)
    assert match_scenes(run, matches, empty)[0].shapes == []


def test_crowds_are_neither_objects_nor_background(run, sample):
    """With the largest object as a crowd, anchors that overlap it are neither positive nor negative."""
    from dataclasses import replace

    largest = int(np.argmax([crop.size for crop, _ in sample.crops]))
    class_ids = sample.class_ids.copy()
    class_ids[largest] *= -1
    matches = match_anchors(run, replace(sample, class_ids=class_ids))
    others = np.delete(sample.boxes, largest, axis=0).tolist()
    match, _ = slow_matches(run.config, run.image.shape, others)
    in_crowd = [slow_iou(box, sample.boxes[largest]) >= 0.001 for box in run.to_input(run.anchors)[:, [1, 0, 3, 2]]]
    expected = np.where((match == -1) & np.array(in_crowd), 0, match)
    np.testing.assert_array_equal(matches.match, expected)
