"""The doors that bytes of strangers come through, by name: functions of bytes that raise on a finding.

Each may only refuse, with an error of ours in one printable line, or give what it says. `tests/fuzz_corpus` has a
folder per target; `fuzz.py` fuzzes them, `test_fuzz_corpus.py` replays the corpus.
"""

import json
import logging
from contextlib import contextmanager
from unittest import mock

import numpy as np
from fuzz_annotations import coco, labelme, rle, via, via_csv, yolo
from fuzz_artifacts import manifest, metadata, onnx, savedmodel
from fuzz_checks import folder, refused_with
from fuzz_states import detectron2_config, detectron2_pickle, mmdet_config, safetensors, torch

from maskrcnn.checkpoints import h5_open
from maskrcnn.checkpoints.h5_content import RefusedError
from maskrcnn.checkpoints.matterport_h5 import read_arrays
from maskrcnn.configuration.files import read_config
from maskrcnn.configuration.model import Config
from maskrcnn.data.readers import picture_files
from maskrcnn.data.readers.findings import RowError
from maskrcnn.data.readers.picture_files import picture_size
from maskrcnn.errors import CheckpointError, ConfigError
from runtime.errors import ImageError
from runtime.pictures.read import read_image

_MOST_PIXELS = 2**20  # the real limit takes a second to decode


@contextmanager
def _small_pictures():
    with mock.patch.object(picture_files, "MAX_PIXELS", _MOST_PIXELS):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def picture(data):
    """An encoded picture, from memory and from a file."""
    path = folder("picture") / "x.png"
    path.write_bytes(data)
    with _small_pictures():
        size = None
        with refused_with(RowError):
            size = picture_size(path)
        with refused_with(ImageError):
            pixels = read_image(data, max_pixels=_MOST_PIXELS)
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert pixels.shape[:2] == size
            assert pixels.shape[0] * pixels.shape[1] <= _MOST_PIXELS
            np.testing.assert_array_equal(read_image(path, max_pixels=_MOST_PIXELS), pixels)
            assert read_image(data, 1).shape == (*pixels.shape[:2], 1)


def config(data):
    """A configuration file, ours or matterport's; what is read is written and read again."""
    path = folder("config") / "config.json"
    path.write_bytes(data)
    with refused_with(ConfigError):
        found = read_config(path)
        assert Config.from_json(found.to_json()) == found
    with refused_with(ConfigError):
        Config.from_json(data.decode(errors="replace"))


def _no_child(stream):
    raise RefusedError("has a layout that Keras does not write")


def weights(data):
    """A weight file; its arrays are no larger than it is. `fuzz_h5.py` tries what a child process reads."""
    path = folder("weights") / "x.h5"
    path.write_bytes(data)
    with refused_with(CheckpointError), mock.patch.object(h5_open, "read_apart", _no_child):
        arrays, attributes = read_arrays(path)
        assert all(array.dtype == np.float32 for array in arrays.values())
        assert max(array.nbytes for array in arrays.values()) <= 4 * len(data)
        json.dumps(attributes)


TARGETS = {
    "picture": picture,
    "rle": rle,
    "coco": coco,
    "via": via,
    "via_csv": via_csv,
    "labelme": labelme,
    "yolo": yolo,
    "metadata": metadata,
    "manifest": manifest,
    "onnx": onnx,
    "savedmodel": savedmodel,
    "config": config,
    "weights": weights,
    "torch": torch,
    "detectron2_pickle": detectron2_pickle,
    "safetensors": safetensors,
    "detectron2_config": detectron2_config,
    "mmdet_config": mmdet_config,
}
