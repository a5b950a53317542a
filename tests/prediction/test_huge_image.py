"""An image of 10,000 x 10,000 pixels in tiles, with an overlay and a splash, within 1.5 GB."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.synthetic.shapes import draw_shapes
from runtime.pictures.header import opened

_CHILD = """
import resource, runpy, sys
try:
    runpy.run_module("maskrcnn", run_name="__main__")
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
MOST_KIB = 1.5e9 / 1024


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of ru_maxrss is that of Linux")
def test_a_huge_image_takes_little_memory(tmp_path):
    part = np.concatenate([draw_shapes(seed, 15, size=(1000, 1000))[0] for seed in (1, 2)], axis=1)
    Image.fromarray(np.tile(part, (10, 5, 1))).save(tmp_path / "huge.jpg", quality=90)
    options = ["demo", "huge.jpg", "--tile", "1024", "--overlay", "--splash", "-o", "out", "--json", "--quiet"]
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, "predict", *options], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert json.loads(run.stdout)["detections"] > 200
    assert int(run.stderr.split()[-1]) < MOST_KIB
    for kind in ("overlay", "splash"):
        (path,) = Path(tmp_path / "out" / kind).iterdir()
        with opened(str(path), kind) as image:
            assert image.size == (10_000, 10_000)
