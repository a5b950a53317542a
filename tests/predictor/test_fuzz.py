"""Hypothesis against the four doors that bytes of strangers come through; each may only refuse with its own error.

`MASKRCNN_FUZZ_EXAMPLES` (see `fuzzing.py`) makes minutes of it.
"""

import copy
import json
import logging
from contextlib import suppress

import numpy as np
import pytest
from annotation_files import coco, write_coco, write_json, write_picture
from bad_pictures import FORMATS, good_picture, png
from fuzzing import fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from maskrcnn.data.check import check_dataset
from maskrcnn.data.findings import RowError
from maskrcnn.data.open import open_dataset
from maskrcnn.data.picture_files import picture_size
from maskrcnn.errors import DatasetError
from runtime.artifact import Metadata, verdict_digest
from runtime.errors import ArtifactError, ImageError, InputError
from runtime.images import read_image
from runtime.letterbox import ResizePolicy
from runtime.rle import area, decode
from runtime.rle_string import read_counts, write_counts

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, -1e308, float("nan"), float("inf"), 10, 40, 60])
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["a.png", "../a.png", "/etc/hostname", "\x1b[2J", "polygon", "\ud800", "0P", "BG", ""])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
METADATA = Metadata(
    format="onnx",
    name="fruit",
    class_names=("BG", "apple"),
    image_channels=3,
    resize=ResizePolicy("pad64", 128, None, 1.5),
    mask_paste="aligned",
    max_detections=7,
    mask_size=28,
    score_threshold=0.25,
    nms_threshold=0.5,
    opset=17,
    engine_minimum={"onnxruntime": "1.25"},
    producer={"maskrcnn-export": "0.1.0"},
    checkpoint={"name": "fruit.h5", "sha256": "ab" * 32},
    verdict={"passed": True, "cases": [{"boxes": 1e-05, "decisions": []}], "graph": None},
).to_json()
EDITS = st.lists(st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=5), VALUES), min_size=1, max_size=4)


def edited(content, edits):
    """`content` with values put in, or taken out, at places that are found by number."""
    content = copy.deepcopy(content)
    for place, value in edits:
        node = content
        for step in place:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[step % len(keys)]
            if step == place[-1] or not isinstance(node[key], dict | list):
                node[key] = value
                break
            node = node[key]
    return content


@fuzz(300)
@given(st.binary(max_size=60) | st.text(max_size=60) | st.text(st.characters(min_codepoint=48, max_codepoint=111)))
def test_rle_text(text):
    with suppress(InputError):
        counts = read_counts(text)
        if len(counts) and counts.min() >= 0 and counts.max() < 2**31:
            np.testing.assert_array_equal(read_counts(write_counts(counts)), counts)


@fuzz(200)
@given(
    st.lists(st.integers(0, 40), max_size=3) | VALUES,
    st.text(st.characters(min_codepoint=40, max_codepoint=115), max_size=12)
    | st.lists(st.integers(-2, 300), max_size=9)
    | VALUES,
)
def test_rle(size, counts):
    rle = {"size": size, "counts": counts}
    with suppress(InputError):
        pixels = area(rle)
        mask = decode(rle)
        assert mask.shape == tuple(size)
        assert mask.sum() == pixels


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Used again by all examples."""
    return tmp_path_factory.mktemp("fuzz")


@fuzz(100)
@given(edits=EDITS)
def test_coco_json(folder, edits):
    path = write_coco(folder, edited(coco(), edits))
    found = check_dataset(path, format="coco")
    assert all(item.where.isprintable() and item.message.isprintable() for item in found)
    with suppress(DatasetError):
        open_dataset(path, format="coco")
        errors = {item.kind for item in found if item.level == "error"}
        assert errors <= {"broken-image", "image-size"}  # seen when a picture is opened


@fuzz(100)
@given(edits=EDITS)
def test_via_json(folder, edits):
    region = {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 9, "height": 5}, "region_attributes": {}}
    write_picture(folder / "a.png", 40, 60)
    path = write_json(folder / "via.json", edited({"a": {"filename": "a.png", "regions": [region]}}, edits))
    check_dataset(path, format="via")


@fuzz(200)
@given(edits=EDITS)
def test_metadata_json(edits):
    values = edited(json.loads(METADATA), edits)
    if isinstance(values, dict) and "verdict" in values:  # as who means harm would
        with suppress(ValueError):
            values["verdict_sha256"] = verdict_digest(values["verdict"])
    with suppress(ArtifactError):
        Metadata.from_json(json.dumps(values), "here")


@fuzz(200)
@given(data=st.binary(max_size=400), kind=st.sampled_from(FORMATS), place=st.integers(0, 400), whole=st.booleans())
@example(data=png(20_000, 20_000), kind="PNG", place=0, whole=True)
def test_picture_bytes(folder, data, kind, place, whole):
    logging.disable(logging.CRITICAL)
    if not whole:
        sound = good_picture(kind)
        data = sound[:place] + data + sound[place + len(data) :]
    try:
        with suppress(ImageError):
            picture = read_image(data)
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
        path = folder / "x.png"
        path.write_bytes(data)
        with suppress(RowError):
            picture_size(path)
    finally:
        logging.disable(logging.NOTSET)
