"""Hypothesis against doors that bytes of strangers come through; each may only refuse with its own error.

`MASKRCNN_FUZZ_EXAMPLES` (see `fuzzing.py`) makes minutes of it. `tests/fuzz/fuzz.py` fuzzes the same targets, guided
by coverage.
"""

import copy
import json
from contextlib import suppress

import pytest
from annotation_files import coco, write_coco
from bad_pictures import FORMATS, good_picture, png
from fuzz_targets import TARGETS
from fuzzing import fuzz
from hypothesis import example, given, strategies as st
from sample_metadata import METADATA

from maskrcnn.data.readers.check import check_dataset
from maskrcnn.data.readers.open import open_dataset
from maskrcnn.errors import DatasetError
from runtime.errors import ImageError, InputError
from runtime.masks.rle import area, decode
from runtime.pictures.read import read_image

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
@given(st.binary(max_size=60) | st.text(st.characters(min_codepoint=48, max_codepoint=111)).map(str.encode))
def test_rle_text(data):
    TARGETS["rle"](data)


@fuzz(200)
@given(
    st.lists(st.integers(0, 40), max_size=3) | VALUES,
    st.text(st.characters(min_codepoint=40, max_codepoint=115), max_size=12)
    | st.text(max_size=12)
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
    found = check_dataset(path, format="coco")  # decodes the pictures, too
    assert all(item.where.isprintable() and item.message.isprintable() for item in found)
    with suppress(DatasetError):
        open_dataset(path, format="coco")
        errors = {item.kind for item in found if item.level == "error"}
        assert errors <= {"broken-image", "image-size", "empty"}  # seen when a picture is opened, or by what trains
    TARGETS["coco"](path.read_bytes())


@fuzz(100)
@given(edits=EDITS)
def test_via_json(edits):
    region = {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 9, "height": 5}, "region_attributes": {}}
    TARGETS["via"](json.dumps(edited({"a": {"filename": "a.png", "regions": [region]}}, edits)).encode())


@fuzz(200)
@given(edits=EDITS)
def test_metadata_json(edits):
    TARGETS["metadata"](json.dumps(edited(json.loads(METADATA.to_json()), edits)).encode())


@fuzz(200)
@given(data=st.binary(max_size=400), kind=st.sampled_from(FORMATS), place=st.integers(0, 400), whole=st.booleans())
@example(data=png(20_000, 20_000), kind="PNG", place=0, whole=True)
def test_picture_bytes(data, kind, place, whole):
    if not whole:
        sound = good_picture(kind)
        data = sound[:place] + data + sound[place + len(data) :]
    TARGETS["picture"](data)


def test_a_picture_above_the_limit_of_pixels():
    with pytest.raises(ImageError, match="pixels"):  # the target has a smaller one
        read_image(png(20_000, 20_000))
