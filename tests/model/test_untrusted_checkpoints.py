"""Malicious weights files: refused because of their structure, before any array is read."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from maskrcnn import load_checkpoint
from maskrcnn.checkpoints import h5_walk, matterport_h5
from maskrcnn.checkpoints.matterport_h5 import read_arrays, write_arrays
from maskrcnn.errors import CheckpointError, CheckpointFormatError
from maskrcnn.training.state import State, load_state, save_state

ARRAYS = {"conv1/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "fc/bias": np.ones(3, np.float32)}
KERNEL = "conv1/conv1/kernel:0"


@pytest.fixture
def secret(tmp_path):
    """A file that must not be read."""
    path = tmp_path / "secret.h5"
    write_arrays(path, {"conv1/kernel": np.full((2, 3, 4), 42, np.float32)})
    return path


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "model.h5"
    write_arrays(path, ARRAYS)
    return path


@pytest.fixture
def no_reading(monkeypatch):
    """Make reading values, of an array or an attribute, a failure of the test."""

    def read(*_args):
        raise AssertionError("values were read before the structure was checked")

    monkeypatch.setattr(h5py.Dataset, "__getitem__", read)
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", read)


def virtual(file, secret):
    layout = h5py.VirtualLayout((2, 3, 4), "f4")
    layout[:] = h5py.VirtualSource(str(secret), KERNEL, (2, 3, 4))
    file.create_virtual_dataset("virtual", layout)


def filtered(file, secret):
    """An array with a filter for which HDF5 would load a plug-in."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((8,))
    plan.set_filter(32000, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    space = h5py.h5s.create_simple((8,))
    h5py.h5d.create(file.id, b"packed", h5py.h5t.IEEE_F32LE, space, plan)


def circle(file, secret):
    file["conv1/again"] = file["conv1"]


def labyrinth(file, secret):
    """Two names for each of fifty groups: 2**50 paths."""
    group = file
    for _ in range(50):
        group["left"] = group["right"] = inner = group.create_group("middle")
        group = inner


def same_array_often(file, secret):
    """A hundred names for one array take no space in the file."""
    kernel = file.create_dataset("large", data=np.zeros(10_000, np.float32))
    for number in range(100):
        file[f"name{number}"] = kernel


HARM = {
    "external link": lambda file, secret: file.__setitem__("conv1/x", h5py.ExternalLink(str(secret), "/" + KERNEL)),
    "external link to a folder above": lambda file, secret: file.__setitem__(
        "x", h5py.ExternalLink("../secret.h5", "/")
    ),
    "soft link": lambda file, secret: file.__setitem__("x", h5py.SoftLink("/" + KERNEL)),
    "soft link to nothing": lambda file, secret: file.__setitem__("x", h5py.SoftLink("/nowhere")),
    "external file": lambda file, secret: file.create_dataset("x", (8,), "f4", external=[(str(secret), 0, 32)]),
    "external file of the system": lambda file, secret: file.create_dataset(
        "fc/x", (8,), "u1", external=[("/etc/hostname", 0, 8)]
    ),
    "virtual": virtual,
    "absurd shape": lambda file, secret: file.create_dataset("x", (2**20, 2**20), "f4", chunks=(64, 64)),
    "zeros, packed a thousandfold": lambda file, secret: file.create_dataset(
        "x", data=np.zeros(10**6, np.float32), compression="gzip"
    ),
    "the same array often": same_array_often,
    "foreign filter": filtered,
    "scale and offset": lambda file, secret: file.create_dataset("x", data=np.zeros(64, np.int32), scaleoffset=4),
    "circle": circle,
    "labyrinth": labyrinth,
    "named type": lambda file, secret: file.__setitem__("x", np.dtype("f8")),
}


REASONS = {
    "link": "has a link at",
    "external file": "outside itself",
    "virtual": "outside itself",
    "absurd": "declares more than",
    "zeros": "declares more than",
    "the same": "declares more than",
    "foreign": "filter 32000",
    "scale": "filter 6",
    "circle": "a group with two names",
    "labyrinth": "a group with two names",
    "named type": "neither a group nor an array",
}


@pytest.mark.parametrize("name", HARM)
def test_harm_anywhere_in_the_file_is_refused_unread(weights, secret, request, name):
    """Also outside the weights."""
    with h5py.File(weights, "a") as file:
        HARM[name](file, secret)
    request.getfixturevalue("no_reading")
    for read in (read_arrays, load_checkpoint):
        with pytest.raises(CheckpointFormatError, match=r"model\.h5") as refused:
            read(weights)
        assert isinstance(refused.value, CheckpointError)
        assert "\n" not in str(refused.value)
        assert [reason for part, reason in REASONS.items() if part in name and reason in str(refused.value)]


def test_an_attribute_larger_than_the_file_is_refused(weights, monkeypatch):
    """HDF5 does not write such attributes, so the size that it reports is patched."""

    crafted = SimpleNamespace(get_space=lambda: h5py.h5s.create_simple((10**15,)), get_type=lambda: h5py.h5t.IEEE_F32LE)
    monkeypatch.setattr(h5py.AttributeManager, "get_id", lambda self, name: crafted)
    with pytest.raises(CheckpointFormatError, match=r"4000000000000000 bytes for the attribute '"):
        read_arrays(weights)


@pytest.mark.parametrize(
    "options", [{"compression": "gzip"}, {"shuffle": True, "compression": 9}, {"fletcher32": True}]
)
def test_honest_packing_is_read(weights, options):
    values = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    with h5py.File(weights, "a") as file:
        del file[KERNEL]
        file.create_dataset(KERNEL, data=values, **options)
    arrays, _ = read_arrays(weights)
    np.testing.assert_array_equal(arrays["conv1/kernel"], values)


def test_a_full_model_file_with_numbers_of_an_optimizer_is_read(tmp_path):
    path = tmp_path / "full.h5"
    write_arrays(path, ARRAYS)
    with h5py.File(path, "a") as file:
        inside = file.create_group("model_weights")
        for name in ("conv1", "fc"):
            file.move(name, f"model_weights/{name}")
        file.create_group("optimizer_weights").create_dataset("iterations:0", data=np.int64(3))
        assert sorted(inside) == ["conv1", "fc"]
    arrays, _ = read_arrays(path)
    assert sorted(arrays) == sorted(ARRAYS)


def test_the_state_of_a_run_is_walked_too(tmp_path, secret):
    path = tmp_path / "state.h5"
    save_state(path, State({"a/b": np.ones(3)}, {"step": 1}))
    assert load_state(path).facts["step"] == 1
    with h5py.File(path, "a") as file:
        file["x"] = h5py.ExternalLink(str(secret), "/")
    with pytest.raises(CheckpointFormatError, match=r"state\.h5"):
        load_state(path)


def test_the_walk_is_what_refuses(weights, secret, monkeypatch):
    """Without the change the file is read, so the tests above do not pass for another reason."""
    with h5py.File(weights, "a") as file:
        file["conv1/x"] = h5py.ExternalLink(str(secret), "/")
    with pytest.raises(CheckpointFormatError):
        read_arrays(weights)
    assert matterport_h5.check_structure is h5_walk.check_structure
    monkeypatch.setattr(matterport_h5, "check_structure", lambda file, path: None)
    assert sorted(read_arrays(weights)[0]) == sorted(ARRAYS)


@pytest.mark.parametrize("index", [0, 1], ids=["free space", "a text"])
def test_a_heap_that_hdf5_would_read_for_ever_is_refused(tmp_path, index):
    path = tmp_path / "model.h5"
    write_arrays(path, ARRAYS, {"config": "text"})
    assert read_arrays(path)[1]["config"] == "text"
    content = bytearray(path.read_bytes())
    place = content.index(b"GCOL") + 16  # of its first object: index, references, four bytes, size
    size = 0 if index == 0 else 2**64 - 16
    content[place : place + 16] = index.to_bytes(2, "little") + bytes(6) + size.to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match="endless heap"):
        read_arrays(path)


def test_sound_heaps_of_any_filling_are_read(tmp_path):
    path = tmp_path / "model.h5"
    texts = {f"text {length}": "x" * length for length in (*range(1, 80), 4000, 4047, 4048, 4064, 4065, 9000)}
    write_arrays(path, ARRAYS, texts)
    assert texts.items() <= read_arrays(path)[1].items()
