"""Batches that a graph accepts, by the metadata of its artifact."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sample_metadata import METADATA

from runtime.engines.inputs import check_inputs
from runtime.errors import InputError
from runtime.pictures.letterbox import ResizePolicy

FLOAT = replace(METADATA, resize=ResizePolicy("short_side", resampling="float"))
PILLOW = replace(METADATA, resize=ResizePolicy("short_side", resampling="pillow"))


def images(dtype, height=64, width=128, value=0):
    return np.full((2, height, width, 3), value, dtype)


@pytest.mark.parametrize(
    ("metadata", "given"),
    [
        (METADATA, images("uint8")),
        (PILLOW, images("uint8", 32, 96)),
        (FLOAT, images("float32", 32, 96)),
        (FLOAT, images("float32", 800, 1344, 255)),
    ],
)
def test_accepted(metadata, given):
    windows = check_inputs(given, np.zeros((2, 4)), metadata)
    assert windows.dtype == np.float32


@pytest.mark.parametrize(
    ("metadata", "given", "message"),
    [
        (METADATA, images("uint8", 96), "expected uint8 [B, H, W, 3], B at least 1, H and W multiples of 64"),
        (METADATA, images("float32"), "images is float32 [2, 64, 128, 3]: expected uint8 [B, H, W, 3]"),
        (PILLOW, images("uint8", 48), "H and W multiples of 32"),
        (PILLOW, images("float32"), "expected uint8"),
        (FLOAT, images("uint8"), "images is uint8 [2, 64, 128, 3]: expected float32 [B, H, W, 3]"),
        (FLOAT, images("float64"), "expected float32"),
        (FLOAT, images("float32", 32, 0), "H and W multiples of 32"),
        (FLOAT, images("float32", value=np.nan), "images has a value that is not finite: expected 0 to 255"),
        (FLOAT, images("float32", value=-np.inf), "not finite"),
    ],
)
def test_refused(metadata, given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_inputs(given, np.zeros((2, 4)), metadata)
