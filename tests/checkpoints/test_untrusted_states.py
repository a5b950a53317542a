"""Malicious files of PyTorch: refused, nothing in them is run, and no more memory is taken than they have."""

import pickle
import struct
import time
import tracemalloc
import zipfile
from io import BytesIO

import fuzz_states
import numpy as np
import pytest
from torch_files import FLOATS, MAGIC, mapping, named, numbered, pickled, storage, tensor, text, torch_stream, torch_zip

from maskrcnn.checkpoints.pytorch.state_dict import read_state
from maskrcnn.errors import CheckpointFormatError


@pytest.fixture
def refuse(tmp_path):
    """Function that expects the refusal of a file with these bytes, and returns the message."""

    def refuse(content, name="x.pth"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(CheckpointFormatError) as refused:
            read_state(path)
        message = str(refused.value)
        assert name in message
        assert message.isprintable()
        assert len(message) < 700
        return message

    return refuse


# Code


def calls(module, name, *arguments):
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def payloads(command):
    """Pickled values that run a command of the shell when an ordinary unpickler reads them."""
    run, system = text(command), named("os", "system")
    state = mapping(__setstate__=system)
    python = text(f"__import__('os').system({command!r})")
    return {
        "REDUCE": system + b"(" + run + b"tR",
        "REDUCE of posix": calls("posix", "system", run),
        "REDUCE of nt": calls("nt", "system", run),
        "REDUCE of a class": calls("subprocess", "Popen", run),
        "eval": calls("builtins", "eval", python),
        "eval of Python 2": calls("__builtin__", "eval", python),
        "getattr": calls("builtins", "getattr", calls("builtins", "__import__", text("os")), text("system")),
        "STACK_GLOBAL": text("os") + text("system") + b"\x93(" + run + b"tR",
        "STACK_GLOBAL from the memo": text("os") + b"q\x00" + text("system") + b"q\x010h\x00h\x01\x93(" + run + b"tR",
        "INST": b"(" + run + b"ios\nsystem\n",
        "OBJ": b"(" + system + run + b"o",
        "NEWOBJ": system + b"(" + run + b"t\x81",
        "NEWOBJ_EX": system + b"(" + run + b"t}\x92",
        "BUILD": named("argparse", "Namespace") + b")\x81" + state + b"b" + run + b"b",
        "BUILD of a dictionary": named("collections", "OrderedDict") + b")R" + state + b"b" + run + b"b",
        "BUILD of a tensor": tensor() + state + b"b" + run + b"b",
        "a name alone": system,
        "a name within a name": text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93",
        "a default of a dictionary": calls("collections", "defaultdict", system),
        "copyreg": calls("copyreg", "_reconstructor", system, named("builtins", "object"), run),
        "copyreg, NEWOBJ": calls("copyreg", "__newobj__", system, run),
        "the registry of extensions": calls("copyreg", "add_extension", text("os"), text("system"), b"K\x01"),
        "EXT1": b"\x82\x01(" + run + b"tR",
        "EXT2": b"\x83\x01\x00(" + run + b"tR",
        "EXT4": b"\x84\x01\x00\x00\x00(" + run + b"tR",
        "functools.partial": calls("functools", "partial", system, run) + b")R",
        "the result of a call": calls("argparse", "Namespace") + b"(" + run + b"tR",
        "BINPERSID": run + b"Q",
        "PERSID": b"P" + command.encode() + b"\n",
        "a module of PyTorch": b"(" + text("module") + system + text("x.py") + text(command) + b"tQ",
        "a function of PyTorch": calls("torch.hub", "load", run),
        "a function of NumPy": calls("numpy.testing._private.utils", "runstring", run, b"}"),
        "a function of any package": calls("pip", "main", run),
        "a rebuilt tensor": calls("torch._tensor", "_rebuild_from_type_v2", system, system, b"(" + run + b"t", b"N"),
        "runpy": calls("runpy", "run_path", run),
        "pickle": calls("pickle", "loads", run),
    }


PLACES = {
    "whole": lambda value: value,
    "a weight": lambda value: mapping(a=tensor(), b=value),
    "beside the weights": lambda value: mapping(state_dict=mapping(a=tensor()), meta=value),
    "nested in meta": lambda value: mapping(
        state_dict=mapping(a=tensor()), meta=mapping(cfg=text("x"), history=b"](" + mapping(a=value) + b"K\x01e")
    ),
    "a key": lambda value: b"}(" + value + b"K\x01" + text("model") + mapping(a=tensor()) + b"u",
    "left on the stack": lambda value: value + b"0" + mapping(a=tensor()),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", payloads(""))
def test_code_is_refused_and_not_run(refuse, tmp_path, name, place):
    ran = tmp_path / "ran"
    value = PLACES[place](payloads(f"touch {ran}")[name])
    for make in (torch_zip, torch_stream):
        refuse(make(value))
    refuse(pickled(value), "x.pkl")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["REDUCE", "INST", "OBJ", "BUILD", "eval", "STACK_GLOBAL from the memo"])
def test_an_ordinary_unpickler_would_run_it(tmp_path, name):
    """So the tests above do not pass for another reason."""
    pickle.loads(pickled(payloads(f"touch {tmp_path}/ran")[name]))
    assert (tmp_path / "ran").exists()


def test_the_name_of_what_was_asked_for_is_told(refuse):
    message = refuse(torch_zip(PLACES["nested in meta"](payloads("x")["REDUCE"])))
    assert "os.system, which weights do not need and which was not run" in message


@pytest.mark.parametrize(
    "value",
    [
        calls("torchvision.models", "MaskRCNN") + mapping(_modules=b"}", _parameters=b"}") + b"b",
        mapping(model=calls("my.models", "Net") + mapping(_modules=b"}", hook=named("os", "system")) + b"b"),
        b"(" + text("module") + named("my.models", "Net") + text("a.py") + text("class") + b"tQ",
    ],
    ids=["whole", "inside", "with its source"],
)
@pytest.mark.parametrize("make", [torch_zip, torch_stream])
def test_a_whole_module(refuse, make, value):
    assert "holds the whole module" in (message := refuse(make(value, ())))
    assert "torch.save(model.state_dict(), 'NAME.pth')" in message


# Other files


def archive_of(*names):
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, pickled(mapping(a=tensor())))
    return content.getvalue()


OTHERS = {
    "torchscript": (archive_of("a/data.pkl", "a/constants.pkl"), "TorchScript archive.*torch.jit.load"),
    "torchscript code": (archive_of("a/data.pkl", "a/code/x.py"), "TorchScript archive"),
    "numpy": (archive_of("a.npy"), "not one of torch.save"),
    "two": (archive_of("a/data.pkl", "b/data.pkl"), "not one of torch.save"),
    "caffe2": (pickled(mapping(blobs=b"}")), "Detectron and Caffe2.*Detectron2"),
    "tar": (bytes(257) + b"ustar\x0000", "a tar archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "gzip": (b"\x1f\x8b\x08", "a gzip archive: unpack it"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "page": (b"\n<!DOCTYPE html>", "a web page"),
    "index": (b'{"weight_map": {}}', "JSON, not weights"),
    "tensorflow": (bytes(40) + bytes.fromhex("57fb808b247547db"), "part of a TensorFlow checkpoint"),
    "noise": (b"anything else", "no file of weights that is known: expected"),
    "empty": (b"", "is empty"),
    "number": (torch_zip(b"K\x01"), "no weights, but a int|no weights, but an int"),
    "object": (torch_zip(calls("my.code", "Thing")), "no weights, but my.code.Thing"),
    "other keys": (torch_zip(mapping(optimizer=b"}", lr=b"K\x01")), "only 'optimizer', 'lr'"),
    "quantized": (torch_zip(mapping(a=tensor(function="_rebuild_qtensor"))), "a as torch._utils._rebuild_qtensor"),
    "quantized storage": (torch_zip(mapping(a=tensor(kind="QInt8Storage"))), "of torch.QInt8Storage.*quantized"),
    "complex": (torch_zip(mapping(a=tensor(kind="ComplexFloatStorage"))), "complex"),
    "complex stream": (torch_stream(mapping(a=tensor(kind="ComplexFloatStorage"))), "complex type"),
    "numbers as names": (torch_zip(b"}(K\x01" + tensor() + b"u"), "as the name of a weight"),
    "old view": (torch_stream(mapping(a=tensor(view=numbered(1, 2, 3)))), "older than 0.4"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused_by_name(tmp_path, name):
    content, message = OTHERS[name]
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=message):
        read_state(path)


# Sizes

HUGE = 10**12
GEOMETRY = {
    "10**12 values": (tensor((10**6, 10**6), (10**6, 1)), "its storage has 6 values"),
    "10**12 values of a storage": (
        tensor((10**6, 10**6), (10**6, 1), count=HUGE),
        "declares more than 4000000000000|not where it should be",
    ),
    "10**12 times the same value": (tensor((10**6, 10**6), (0, 0)), "use values twice"),
    "one value twice": (tensor((2, 3), (2, 1)), "use values twice"),
    "a window that slides": (tensor((4, 3), (1, 1)), "use values twice"),
    "strides too large": (tensor((2, 3), (4, 1)), "its storage has 6 values"),
    "an offset": (tensor(offset=1), "its storage has 6 values"),
    "a huge offset": (tensor(offset=2**62), "no numbers that a tensor can have"),
    "a storage that is longer": (tensor(count=7), "has 24 bytes; expected 28|not where it should be"),
    "a storage that is shorter": (tensor((5,), (1,), count=5), "has 24 bytes; expected 20|not where it should be"),
    "another type": (tensor(kind="DoubleStorage"), "has 24 bytes; expected 48|is truncated"),
    "fewer strides": (tensor((2, 3), (1,)), "2 axes and 1 strides"),
    "many axes": (tensor((1,) * 40, (1,) * 40), "40 axes"),
    "no values and huge": (tensor((0, 2**60), (1, 1)), "no numbers that a tensor can have"),
    "a storage that is missing": (tensor(key="9"), "missing|damaged, or has values"),
    "a path as storage": (tensor(key="../../etc/passwd"), "missing|damaged, or has values"),
    "a huge storage": (tensor(count=2**62), "the description of a storage is wrong"),
}


@pytest.mark.parametrize("make", [torch_zip, torch_stream])
@pytest.mark.parametrize("name", GEOMETRY)
def test_a_tensor_outside_its_storage_is_refused_before_an_array_is_made(refuse, make, name):
    value, expected = GEOMETRY[name]
    content = make(mapping(a=value))
    tracemalloc.start()
    try:
        message = refuse(content)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert any(part in message for part in expected.split("|")), message


@pytest.mark.parametrize(
    "numbers", [b"(J\xff\xff\xff\xffK\x01t", b"(G?\xf0\0\0\0\0\0\0K\x01t", b"(\x88K\x01t", b"N", b"]"]
)
def test_shapes_and_strides_are_numbers(refuse, numbers):
    for parts in ((numbers, numbered(1, 1)), (numbered(2, 1), numbers)):
        value = calls("torch._utils", "_rebuild_tensor", storage(), b"K\x00", *parts)
        assert "no numbers that a tensor can have" in refuse(torch_zip(mapping(a=value)))


def test_one_storage_in_a_thousand_tensors_is_refused(refuse):
    state = b"}(" + b"".join(text(f"a{number}") + tensor((6,), (1,)) for number in range(40_000)) + b"u"
    many = mapping(
        a=tensor((10**6,), (1,), count=10**6), **{f"b{n}": tensor((10**6,), (1,), count=10**6) for n in "xyzuvw"}
    )
    assert "declares more than" in refuse(torch_zip(many, [bytes(4 * 10**6)]))
    read_state_size = len(torch_zip(state))
    assert read_state_size > 4 * 40_000  # names alone take more than the values, so this one is honest


def test_an_array_has_as_many_bytes_as_its_shape_says(refuse):
    content = pickle.dumps({"model": {"a": np.zeros((2, 3), np.float32)}}, 2)
    assert "(200, 3)" in refuse(content.replace(b"K\x02K\x03\x86", b"K\xc8K\x03\x86"), "x.pkl")


BOMBS = {
    "memo": b"r\xff\xff\xff\x7f" + b"}",
    "memo, missing": b"j\xff\xff\xff\x7f",
    "text": b"\x8d" + struct.pack("<Q", 2**62) + b"x",
    "bytes": b"\x8e" + struct.pack("<Q", HUGE) + b"x",
    "bytearray": b"\x96" + struct.pack("<Q", HUGE) + b"x",
    "bytes of 2 GB": b"B\xff\xff\xff\x7fx",
    "number": b"\x8b\xff\xff\xff\x7f\x01",
    "decimal number": b"L" + b"9" * 100_000 + b"L\n",
    "frame": b"\x95" + struct.pack("<Q", 2**62) + b"}",
    "depth as key": b"}" + b")" + b"\x85" * 20_000 + b"K\x01s",
    "depth as member": b"\x8f()" + b"\x85" * 20_000 + b"\x90",
    "depth as pair": calls("collections", "OrderedDict", b"](" + b")" + b"\x85" * 20_000 + b"K\x01\x86e"),
    "depth of lists": b"]" * 20_000 + b"a" * 19_999,
    "itself": b"]q\x00h\x00a",
    "doubling": b"]q\x000" + b"(h\x00h\x00lq\x000" * 60 + b"h\x00",
    "doubling tuples": b")q\x000" + b"h\x00h\x00\x86q\x000" * 60 + b"h\x00",
    "a long list, often": b"]("
    + b"N" * 10_000
    + b"eq\x000"
    + (named("builtins", "list") + b"h\x00\x85R0") * 5000
    + b"}",
    "many tuples as keys": b"}(" + b"".join(b"J" + struct.pack("<i", n) + b"\x85N" for n in range(5000)) + b"u",
    "protocol": b"\x80\x63}",
    "buffers": b"\x97",
    "an odd escape": b"ca\\l\nb\n",
    "no value": b"0",
    "no mark": b"t",
    "a mark as value": b"(R",
    "a number called": b"K\x01)R",
    "appended to a number": b"K\x01K\x02a",
    "an odd number of entries": b"}(K\x01u",
    "a name of numbers": b"K\x01K\x02\x93",
    "a state of a number": b"K\x01}b",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_with_little_time_and_memory(refuse, name):
    value = BOMBS[name]
    start = time.monotonic()
    refuse(torch_stream(value))
    refuse(pickled(value), "x.pkl")
    tracemalloc.start()
    try:
        refuse(torch_zip(value))
        assert tracemalloc.get_traced_memory()[1] < 2**22 + 100 * len(value)
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 30


def test_a_pickle_has_a_largest_number_of_steps(refuse, monkeypatch):
    monkeypatch.setattr("maskrcnn.checkpoints.pytorch.pickle_data._MOST_STEPS", 1000)
    assert "more than 1000 steps" in refuse(pickled(b"N0" * 501 + b"}"), "x.pkl")


@pytest.mark.parametrize("name", ["depth of lists", "itself", "doubling", "doubling tuples"])
def test_bombs_beside_the_weights_are_left_out(tmp_path, name):
    path = tmp_path / "x.pth"
    path.write_bytes(torch_zip(mapping(model=mapping(a=tensor()), meta=BOMBS[name])))
    found = read_state(path)
    assert list(found.tensors) == ["a"]
    assert len(repr(found.extras)) < 100_000


# Zip files


def changed(content, old, new, count=-1):
    assert old in content
    return content.replace(old, new, count)


def zip_cases():
    value = mapping(a=tensor())
    sound = torch_zip(value)
    place = sound.index(FLOATS)
    central = sound.index(b"PK\x01\x02")
    second = sound.index(b"PK\x01\x02", central + 1)
    return {
        "compressed": (torch_zip(value, compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
        "bomb": (torch_zip(value, [bytes(10**7)], compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
        "encrypted": (sound[: central + 8] + b"\x01" + sound[central + 9 :], "compressed or encrypted"),
        "absolute": (torch_zip(value, root="/archive"), "none that torch.save writes"),
        "above": (torch_zip(value, extra=[("../../x", b"")]), "none that torch.save writes"),
        "backslash": (torch_zip(value, extra=[("a\\x", b"")]), "none that torch.save writes"),
        "folder": (torch_zip(value, extra=[("data/", b"")]), "none that torch.save writes"),
        "no name": (sound[: central + 28] + b"\0\0" + sound[central + 30 : central + 46] + sound[central + 62 :], ""),
        "changed value": (sound[:place] + b"\x01" + sound[place + 1 :], "checksum of archive/data/0 is wrong"),
        "changed pickle": (changed(sound, b"FloatStorage", b"HalfStorage\x20"), "checksum of archive/data.pkl"),
        "byte order": (torch_zip(value, extra=[("byteorder", b"middle")]), "byte order is 'middle'"),
        "two in one place": (
            sound[: second + 42] + struct.pack("<I", 0) + sound[second + 46 :],
            "in the same place|not where it should be",
        ),
        "beyond": (sound[: central + 42] + struct.pack("<I", 2**31) + sound[central + 46 :], "truncated or damaged"),
        "size": (
            sound[: second + 20] + struct.pack("<II", 2**31, 2**31) + sound[second + 28 :],
            "not where it should be",
        ),
    }


@pytest.mark.parametrize("name", zip_cases())
def test_a_zip_file_that_is_not_as_pytorch_writes_it(refuse, name):
    content, expected = zip_cases()[name]
    message = refuse(content)
    assert any(part in message for part in expected.split("|")), message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(refuse):
    assert "two entries" in refuse(torch_zip(mapping(a=tensor()), extra=[("data/0", FLOATS)]))


def test_checksums_that_pytorch_left_out(tmp_path):
    """It writes 0 with `set_crc32_options(False)`."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a/data.pkl", pickled(mapping(a=tensor())))
        archive.writestr("a/data/0", FLOATS)
        for info in archive.infolist():
            info.CRC = 0
    (tmp_path / "x.pth").write_bytes(content.getvalue())
    np.testing.assert_array_equal(read_state(tmp_path / "x.pth").tensors["a"].ravel(), np.arange(6))


# Streams

STREAMS = {
    "another magic number": (torch_stream(mapping(a=tensor()), magic=MAGIC + 1), "no weights"),
    "another protocol": (torch_stream(mapping(a=tensor()), protocol=1002), "expected 0x3e9"),
    "a storage twice": (torch_stream(mapping(a=tensor()), [("0", 6, FLOATS)] * 2), "list of its storages"),
    "another storage": (torch_stream(mapping(a=tensor()), [("1", 6, FLOATS)]), "damaged, or has values of"),
    "no storage": (torch_stream(mapping(a=tensor()), []), "values of the storage 0 are missing"),
    "another count": (torch_stream(mapping(a=tensor()), [("0", 7, FLOATS)]), "not where it should be"),
    "two descriptions": (torch_stream(mapping(a=tensor(), b=tensor(count=5))), "in two ways"),
    "short": (torch_stream(mapping(a=tensor()), [("0", 6, FLOATS[:-1])]), "is truncated"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_not_as_pytorch_writes_it(refuse, name):
    content, expected = STREAMS[name]
    assert expected in refuse(content)


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_change_at_random_ends_in_another_error(count):
    found = fuzz_states.run(count, 0)
    assert sum(found.values()) == count
    assert min(found.values()) > count / 100  # the changes break files, and not only their first bytes


@pytest.mark.parametrize("kind", ["zip", "stream", "pickle"])
def test_a_file_cut_anywhere(refuse, kind):
    value = mapping(model=mapping(a=tensor()), epoch=b"K\x01")
    whole = {
        "zip": torch_zip(value),
        "stream": torch_stream(value),
        "pickle": pickle.dumps({"model": {"a": np.arange(6.0)}}, 4),
    }[kind]
    name = "x.pkl" if kind == "pickle" else "x.pth"
    for length in range(len(whole)):
        refuse(whole[:length], name)
