"""Weights of PyTorch programs, read by name from every container."""

import numpy as np
import pytest
from torch_files import mapping, tensor, torch_stream, torch_zip

from maskrcnn.checkpoints.pytorch.state_dict import read_state

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def read(tmp_path):
    """Function that reads bytes as a file."""

    def read(content, name="x.pth"):
        path = tmp_path / name
        path.write_bytes(content)
        return read_state(path)

    return read


@pytest.mark.parametrize("make", [torch_zip, torch_stream])
def test_a_bare_state_dict(read, make):
    found = read(make(mapping(**{"a.weight": tensor()})))
    assert list(found.tensors) == ["a.weight"]
    np.testing.assert_array_equal(found.tensors["a.weight"], VALUES, strict=True)
    assert (found.key, found.prefix, found.extras) == ("", "", {})
