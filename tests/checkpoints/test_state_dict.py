"""Weights of PyTorch programs, read by name from every container, and written."""

import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_files import FLOATS, mapping, named, numbered, pickled, storage, tensor, text, torch_stream, torch_zip

from maskrcnn.checkpoints.pytorch import state_dict
from maskrcnn.checkpoints.pytorch.state_dict import is_state_file, read_state
from maskrcnn.checkpoints.pytorch.torch_write import write_state
from maskrcnn.errors import CheckpointFormatError, CheckpointNotFoundError
from runtime.errors import MissingPackageError, OutputError

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
GOLDEN = Path(__file__).parents[1] / "golden"
GENUINE = {
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "every_second": np.arange(0, 12, 2, np.float32).reshape(3, 2),
    "parameter": np.array([1.5, -2], np.float32),
    "half": np.array([0.1, 65504], np.float16).astype(np.float32),
    "brain": np.array([[0x3DCD0000, 0xFF620000]], np.uint32).view(np.float32),
    "double": np.array([1e-3], np.float32),
    "steps": np.array(7),
    "flags": np.array([True, False]),
    "none": np.empty((0, 3), np.float32),
}


@pytest.fixture
def read(tmp_path):
    """Function that reads bytes as a file."""

    def read(content, name="x.pth"):
        path = tmp_path / name
        path.write_bytes(content)
        return read_state(path)

    return read


@pytest.mark.parametrize(("name", "container"), [("torch_zip", "torch zip"), ("torch_stream", "torch stream")])
def test_a_file_of_pytorch(name, container):
    """Written by PyTorch 2.13, as tests/golden/make_torch.py says."""
    found = read_state(GOLDEN / f"{name}.pth")
    assert list(found.tensors) == list(GENUINE)
    for key, values in GENUINE.items():
        np.testing.assert_array_equal(found.tensors[key], values, strict=True)
        assert found.tensors[key].flags.c_contiguous
    assert (found.container, found.key, found.prefix, found.ignored) == (container, "model", "module.", ())
    assert found.extras["epoch"] == 3
    assert found.extras["args"] == {"lr": 0.02, "name": "a", "size": [2, 3]}
    assert found.extras["optimizer"]["param_groups"][0]["momentum"] == 0.9


@pytest.mark.parametrize("name", ["torch_zip", "torch_stream"])
def test_the_same_as_pytorch_itself(name):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    expected = torch.load(GOLDEN / f"{name}.pth", weights_only=False)["model"]
    for key, values in read_state(GOLDEN / f"{name}.pth").tensors.items():
        whole = expected[f"module.{key}"].detach()
        np.testing.assert_array_equal(values, (whole.float() if whole.is_floating_point() else whole).numpy())


@pytest.mark.parametrize("make", [torch_zip, torch_stream])
def test_a_bare_state_dict(read, make):
    found = read(make(mapping(**{"a.weight": tensor(), "note": text("x")})))
    assert list(found.tensors) == ["a.weight"]
    np.testing.assert_array_equal(found.tensors["a.weight"], VALUES, strict=True)
    assert (found.key, found.prefix, found.extras, found.ignored) == ("", "", {}, ("note",))


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "model_state", "ema"])
def test_the_key_of_a_training_program(read, key):
    others = {"epoch": b"K\x05", "optimizer": mapping(state=mapping(momentum=tensor()))}
    found = read(torch_zip(mapping(**others, **{key: mapping(**{"module._orig_mod.a": tensor()})})))
    assert (found.key, found.prefix, list(found.tensors)) == (key, "module._orig_mod.", ["a"])
    assert found.extras == {"epoch": 5, "optimizer": {"state": {}}}


def test_the_weights_come_before_their_average(read):
    found = read(torch_zip(mapping(ema=mapping(a=tensor()), state_dict=mapping(b=tensor()))))
    assert found.key == "state_dict"


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model."])
def test_prefixes_of_wrappers(read, prefix):
    found = read(torch_zip(mapping(**{f"{prefix}a": tensor(), f"{prefix}b.model.c": tensor()})))
    assert (found.prefix, list(found.tensors)) == (prefix, ["a", "b.model.c"])


def test_a_prefix_that_not_all_names_have_stays(read):
    found = read(torch_zip(mapping(**{"module.a": tensor(), "b": tensor()})))
    assert (found.prefix, list(found.tensors)) == ("", ["module.a", "b"])


def test_meta_of_mmdetection(read):
    """Objects of foreign classes are of no use, and do no harm; their entries are read."""
    history = (
        named("mmengine.logging.history_buffer", "HistoryBuffer") + b")\x81" + mapping(_max_length=b"K\x09") + b"b"
    )
    config = named("mmengine.config.config", "ConfigDict") + b")\x81" + b"(" + text("type") + text("MaskRCNN") + b"u"
    meta = mapping(cfg=text("model = dict()\n"), CLASSES=b"(" + text("a") + text("b") + b"t", history=history)
    found = read(torch_zip(mapping(state_dict=mapping(a=tensor()), meta=meta, config=config)))
    expected = {"cfg": "model = dict()\n", "CLASSES": ["a", "b"], "history": {"_max_length": 9}}
    assert found.extras == {"meta": expected, "config": {"type": "MaskRCNN"}}


DTYPES = {
    "FloatStorage": ("<f4", np.float32),
    "DoubleStorage": ("<f8", np.float32),
    "HalfStorage": ("<f2", np.float32),
    "LongStorage": ("<i8", np.int64),
    "IntStorage": ("<i4", np.int32),
    "ShortStorage": ("<i2", np.int16),
    "CharStorage": ("i1", np.int8),
    "ByteStorage": ("u1", np.uint8),
    "BoolStorage": ("b1", np.bool_),
}


@pytest.mark.parametrize("kind", DTYPES)
def test_every_type(read, kind):
    written, expected = DTYPES[kind]
    values = np.arange(6).astype(written)
    found = read(torch_zip(mapping(a=tensor(kind=kind)), [values.tobytes()]))
    np.testing.assert_array_equal(found.tensors["a"], values.reshape(2, 3).astype(expected), strict=True)


def test_an_untyped_storage(read):
    """What torch.save writes for types without a storage of their own."""
    arguments = storage(kind="UntypedStorage", count=24) + b"K\x00" + numbered(2, 3) + numbered(3, 1) + b"\x89"
    value = named("torch._utils", "_rebuild_tensor_v3") + b"(" + arguments + b"}" + named("torch", "float32") + b"tR"
    np.testing.assert_array_equal(read(torch_zip(mapping(a=value))).tensors["a"], VALUES, strict=True)


def test_bytes_in_the_other_order(read):
    content = torch_zip(mapping(a=tensor()), [struct.pack(">6f", *range(6))], extra=[("byteorder", b"big")])
    np.testing.assert_array_equal(read(content).tensors["a"], VALUES, strict=True)


def test_tensors_that_share_a_storage(read):
    whole, part, turned = tensor(), tensor((2,), (3,), 1), tensor((3, 2), (1, 3))
    found = read(torch_zip(mapping(a=whole, b=part, c=turned))).tensors
    np.testing.assert_array_equal(found["b"], VALUES[:, 1], strict=True)
    np.testing.assert_array_equal(found["c"], VALUES.T, strict=True)
    assert found["b"].base is None  # it keeps no more than its own values


def test_each_storage_is_read_once_and_only_those_of_the_weights(read, monkeypatch):
    asked = []
    original = state_dict.TorchZip.read_storage
    monkeypatch.setattr(
        state_dict.TorchZip, "read_storage", lambda file, one: asked.append(one.key) or original(file, one)
    )
    state = mapping(a=tensor(), b=tensor(key="1"), c=tensor())
    read(torch_zip(mapping(model=state, optimizer=mapping(m=tensor(key="2"))), [FLOATS] * 3))
    assert asked == ["0", "1"]


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_pickle_of_detectron2(read, protocol, order):
    shared = np.asarray(VALUES, order=order)
    weights = {"a": shared, "again": shared, "h": VALUES.astype("f2"), "big": VALUES.astype(">f4"), "n": np.array(7)}
    content = {"model": weights, "__author__": "Detectron2 Model Zoo", "rate": np.float64(0.5), "size": np.ones(2)}
    found = read(pickle.dumps(content, protocol), "model_final.pkl")
    assert list(found.tensors) == list(weights)
    for key in ("a", "again", "h", "big"):
        np.testing.assert_array_equal(found.tensors[key], VALUES, strict=True)
        assert found.tensors[key].flags.c_contiguous
    assert found.tensors["n"] == 7
    assert (found.container, found.key) == ("pickle", "model")
    assert found.extras == {"__author__": "Detectron2 Model Zoo", "rate": 0.5}


def test_a_pickle_of_python_2(read):
    """Its bytes are texts."""
    code = b"(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01(K\x02K\x03t" + named("numpy", "dtype") + code + b"\x89U" + bytes([24]) + FLOATS + b"tb"
    empty = named("numpy.core.multiarray", "_reconstruct") + b"(" + named("numpy", "ndarray") + b"K\x00\x85U\x01btR"
    content = b"}U\x05model}U\x01a" + empty + state + b"ss"
    np.testing.assert_array_equal(read(pickled(content), "x.pkl").tensors["a"], VALUES, strict=True)


# Safetensors


def safetensors_of(texts=None, **entries):
    import json

    place, header, data = 0, {} if texts is None else {"__metadata__": texts}, b""
    for name, (dtype, shape, values) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(values)]}
        place, data = place + len(values), data + values
    start = json.dumps(header).encode()
    return struct.pack("<Q", len(start)) + start + data


def test_safetensors(read):
    pytest.importorskip("safetensors", reason="needs safetensors")
    brain = np.array([0.1, 1], np.float32).view(np.uint32) >> 16
    entries = {
        "module.b": ("F32", [2, 3], FLOATS),
        "module.brain": ("BF16", [2], brain.astype("<u2").tobytes()),
        "module.half": ("F16", [2], np.array([0.5, 2], "<f2").tobytes()),
        "module.n": ("I64", [], np.array(7, "<i8").tobytes()),
        "module.none": ("F32", [0, 3], b""),
    }
    content = safetensors_of({"format": "pt"}, **entries)
    for name in ("x.safetensors", "x.bin"):
        found = read(content, name)
        np.testing.assert_array_equal(found.tensors["b"], VALUES, strict=True)
        np.testing.assert_array_equal(found.tensors["brain"], (brain << 16).view(np.float32), strict=True)
        np.testing.assert_array_equal(found.tensors["half"], np.array([0.5, 2], np.float32), strict=True)
        assert (int(found.tensors["n"]), found.tensors["none"].shape) == (7, (0, 3))
        assert (found.container, found.prefix, found.extras) == ("safetensors", "module.", {"format": "pt"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x05\0\0\0\0\0\0\0{}", "truncated or damaged"),
        (struct.pack("<Q", 2**63) + b"{}", "truncated or damaged"),
        (safetensors_of(a=("F32", [2, 3], FLOATS))[:-1], "truncated or damaged"),
        (safetensors_of(a=("F32", [10**6, 10**6], FLOATS)), "truncated or damaged"),
        (safetensors_of(a=("F8_E4M3", [24], FLOATS)), "a in the type F8_E4M3"),
        (safetensors_of(), "no weights"),
    ],
)
def test_bad_safetensors(read, content, message):
    pytest.importorskip("safetensors", reason="needs safetensors")
    with pytest.raises(CheckpointFormatError, match=message):
        read(content, "x.safetensors")


def test_safetensors_without_the_package(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingPackageError, match=r"reading \.safetensors files needs .*maskrcnn-export\[tf\]"):
        read(safetensors_of(a=("F32", [2, 3], FLOATS)), "x.safetensors")


# Writing


WRITTEN = {
    "conv.weight": VALUES.T,
    "empty": np.empty((0, 3), np.float32),
    "steps": np.array(7),
    "flags": np.array([True, False]),
    "big": np.array([1, 2], ">i4"),
    "bytes": np.arange(300, dtype=np.uint8),
}


def test_what_is_written_is_read(tmp_path):
    write_state(tmp_path / "a.pth", WRITTEN)
    write_state(tmp_path / "b.pth", WRITTEN)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    found = read_state(tmp_path / "a.pth")
    assert list(found.tensors) == list(WRITTEN)
    for name, values in WRITTEN.items():
        np.testing.assert_array_equal(found.tensors[name], values)
        assert found.tensors[name].dtype == values.dtype.newbyteorder("=")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert archive.testzip() is None
        for info in archive.infolist():  # where PyTorch maps a file into memory, values begin at multiples of 64
            assert (info.header_offset + 30 + len(info.filename) + len(info.extra)) % 64 == 0
    with pytest.raises(OutputError, match="already exists"):
        write_state(tmp_path / "a.pth", WRITTEN)


@pytest.mark.parametrize("weights_only", [True, False])
def test_what_is_written_is_read_by_pytorch(tmp_path, weights_only):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    write_state(tmp_path / "a.pth", WRITTEN)
    for options in ({}, {"mmap": True}):
        found = torch.load(tmp_path / "a.pth", weights_only=weights_only, **options)
        assert list(found) == list(WRITTEN)
        for name, values in WRITTEN.items():
            np.testing.assert_array_equal(found[name].numpy(), values)


@pytest.mark.parametrize("dtype", ["c8", "U3", "O"])
def test_other_types_are_not_written(tmp_path, dtype):
    with pytest.raises(ValueError, match="a has the type"):
        write_state(tmp_path / "a.pth", {"a": np.zeros(2, dtype)})
    assert list(tmp_path.iterdir()) == []


# Which files are meant


@pytest.mark.parametrize(
    ("name", "content", "known"),
    [
        ("a.PTH", b"", True),
        ("a.safetensors", b"", True),
        ("weights", torch_zip(mapping()), True),
        ("weights", torch_stream(mapping()), True),
        ("a.h5", b"\x89HDF\r\n\x1a\n", False),
        ("a.keras", b"PK\x03\x04", False),
        ("nowhere", None, False),
    ],
)
def test_files_that_are_meant(tmp_path, name, content, known):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert is_state_file(tmp_path / name) == known


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointNotFoundError):
        read_state(tmp_path / "x.pth")
    with pytest.raises(CheckpointFormatError, match="a folder: expected a file of weights"):
        read_state(tmp_path)
