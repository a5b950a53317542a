"""Malicious weights files: refused because of their structure, before any array is read."""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from maskrcnn import load_checkpoint
from maskrcnn.checkpoints import h5_apart
from maskrcnn.checkpoints.h5_content import RefusedError
from maskrcnn.checkpoints.h5_walk import walk
from maskrcnn.checkpoints.matterport_h5 import read_arrays, write_arrays
from maskrcnn.errors import CheckpointError, CheckpointFormatError
from maskrcnn.training.state import State, load_state, save_state

SHARED = Path(os.environ.get("MASKRCNN_SHARED", Path(__file__).parents[3] / "shared"))
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


@pytest.fixture(params=["earliest", "latest"])
def layout(request, weights):
    """The weights as Keras lays them out, and in a layout that only the HDF5 library reads."""
    if request.param == "latest":
        to_latest(weights)
    return request.param


def to_latest(path):
    """Write a file again in the library's latest layout."""
    with h5py.File(path) as old, h5py.File(path.with_suffix(".new"), "w", libver="latest") as new:
        new.attrs.update(old.attrs)
        for name in old:
            old.copy(name, new)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("name", HARM)
def test_harm_anywhere_in_the_file_is_refused_unread(weights, layout, secret, request, name):
    """Also outside the weights."""
    with h5py.File(weights, "a", libver=layout) as file:
        HARM[name](file, secret)
    request.getfixturevalue("no_reading")
    with pytest.raises(CheckpointFormatError, match=r"model\.h5") as refused:
        read_arrays(weights)
    assert isinstance(refused.value, CheckpointError)
    assert "\n" not in str(refused.value)
    reasons = [reason for part, reason in REASONS.items() if part in name and reason in str(refused.value)]
    assert reasons
    with h5py.File(weights) as file, pytest.raises(RefusedError, match=reasons[0]):
        list(walk(file, weights.stat().st_size))  # what a child process does before it reads


def test_harm_is_refused_before_a_model_is_built(weights, secret):
    with h5py.File(weights, "a") as file:
        HARM["external link"](file, secret)
    with pytest.raises(CheckpointFormatError, match=r"model\.h5"):
        load_checkpoint(weights)


def test_an_attribute_larger_than_the_file_is_refused(weights, monkeypatch):
    """HDF5 does not write such attributes, so the size that it reports is patched."""

    crafted = SimpleNamespace(get_space=lambda: h5py.h5s.create_simple((10**15,)), get_type=lambda: h5py.h5t.IEEE_F32LE)
    monkeypatch.setattr(h5py.AttributeManager, "get_id", lambda self, name: crafted)
    with h5py.File(weights) as file, pytest.raises(RefusedError, match="4000000000000000 bytes for the attribute '"):
        list(walk(file, weights.stat().st_size))


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


def test_without_the_check_hdf5_would_follow_the_link(weights, secret):
    """So the tests above do not pass for another reason."""
    with h5py.File(weights, "a") as file:
        file["conv1/x"] = h5py.ExternalLink(str(secret), "/")
        assert np.all(file["conv1/x/" + KERNEL][()] == 42)


@pytest.mark.parametrize("layout", ["earliest", "latest"])
@pytest.mark.parametrize("index", [0, 1], ids=["free space", "a text"])
def test_a_heap_that_hdf5_would_read_for_ever_is_refused(tmp_path, index, layout):
    path = tmp_path / "model.h5"
    write_arrays(path, ARRAYS, {"config": "text"})
    if layout == "latest":
        to_latest(path)
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


# The library in a process of its own


@pytest.mark.parametrize("name", ["crash-7.h5", "crash-10.h5", "crash-11.h5"])
def test_a_file_that_crashes_the_library_is_an_error(name):
    path = SHARED / "cases" / "h5" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with pytest.raises(CheckpointFormatError, match=rf"{name} is damaged: the HDF5 library crashed"):
        read_arrays(path)


@pytest.fixture
def latest(weights):
    to_latest(weights)
    return weights


def test_whatever_layout_an_honest_file_has_it_is_read(latest):
    arrays, attributes = read_arrays(latest)
    assert {key: array.tolist() for key, array in arrays.items()} == {k: a.tolist() for k, a in ARRAYS.items()}
    assert attributes == {"backend": "tensorflow", "keras_version": "2.2.5"}


def test_what_keras_writes_needs_no_child_and_no_library(weights, monkeypatch):
    monkeypatch.setattr(h5_apart, "start_child", lambda *_: pytest.fail("a child was started"))
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("the library was used"))
    assert sorted(read_arrays(weights)[0]) == sorted(ARRAYS)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"crashed while reading it \(exit code -11\)"),
        ("import os; os.abort()", r"crashed while reading it \(exit code -6\)"),
        ("import time; time.sleep(60)", "did not read it within"),
        ("import sys; sys.exit(3)", r"stopped early \(exit code 3\)"),
        ("print('[1, 2]')", "stopped early"),
        ('print(\'{"array": "x", "shape": [4], "dtype": "<f4"}\')', "stopped early"),
        ('print(\'{"array": "x", "shape": [-4], "dtype": "<f4"}\')', "stopped early"),
        ('print(\'{"array": "x", "shape": [1000000000], "dtype": "<f8"}\')', "declares more than 8000000000"),
        ('print(\'{"array": "x", "shape": [1], "dtype": "O"}\')', "stopped early"),
    ],
)
def test_whatever_a_child_does_the_file_is_refused(latest, monkeypatch, code, message):
    monkeypatch.setattr(h5_apart, "_CHILD", code)
    monkeypatch.setattr(h5_apart, "_SECONDS", 2)
    with pytest.raises(CheckpointFormatError, match=message):
        read_arrays(latest)


def test_values_that_cannot_be_read_are_damage(weights):
    """They are found after all that describes them was read."""
    values = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    with h5py.File(weights, "a") as file:
        file.create_dataset("packed", data=values, compression="gzip", fletcher32=True)
        place = file["packed"].id.get_chunk_info(0).byte_offset
    content = bytearray(weights.read_bytes())
    content[place + 20] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match="is truncated or damaged"):
        read_arrays(weights)


def test_an_address_beyond_all_files_is_damage(weights):
    content = bytearray(weights.read_bytes())
    content[48:56] = struct.pack("<Q", 2**63)  # of a driver, which Keras' files do not have
    weights.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match="is truncated or damaged: Python int too large"):
        read_arrays(weights)


def test_a_child_has_limits(latest, monkeypatch):
    body = "import resource, json; from maskrcnn.checkpoints.h5_apart import _limit; _limit(5, 0); "
    body += "limits = [resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS)]; "
    body += "print(json.dumps({'refused': str(limits)}))"
    monkeypatch.setattr(h5_apart, "_CHILD", f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); {body}")
    with pytest.raises(CheckpointFormatError, match=r"\[5, 2147483648\]"):
        read_arrays(latest)


READ = "import sys; from maskrcnn.checkpoints.matterport_h5 import read_arrays; print(len(read_arrays(sys.argv[1])[0]))"
IN_A_THREAD = (
    "import sys, threading; from maskrcnn.checkpoints.matterport_h5 import read_arrays; found = []; "
    "threads = [threading.Thread(target=lambda: found.append(len(read_arrays(sys.argv[1])[0]))) for _ in range(3)]; "
    "[thread.start() for thread in threads]; [thread.join() for thread in threads]; print(*set(found))"
)
NOWHERE = "import os, shutil, tempfile; gone = tempfile.mkdtemp(); os.chdir(gone); shutil.rmtree(gone); "


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], READ),
        (["-P"], READ),
        ([], IN_A_THREAD),
        ([], "import tensorflow; " + READ),
        ([], NOWHERE + READ),
        ([], "import os; os.close(0); os.close(2); " + READ),
    ],
    ids=["python -c", "without the folder of the script", "threads", "TensorFlow", "no current folder", "no stdin"],
)
def test_a_child_starts_wherever_a_program_runs(latest, options, code, pytestconfig):
    command = [sys.executable, *options, "-c", code, str(latest)]
    environment = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.parametrize("program", ["/opt/app/application", "/usr/bin/uwsgi", ""])
def test_a_program_that_is_no_python_starts_no_child(weights, monkeypatch, program):
    monkeypatch.setattr(h5_apart.spawn, "get_executable", lambda: program)
    assert sorted(read_arrays(weights)[0]) == sorted(ARRAYS)
    to_latest(weights)
    with pytest.raises(CheckpointFormatError, match="this program is no Python"):
        read_arrays(weights)


# The reader of Keras' layout


def test_many_layers_and_attributes_are_read(tmp_path):
    """Indices of several levels, and object headers in several parts."""
    path = tmp_path / "model.h5"
    arrays = {f"layer_{number}/kernel": np.full(3, number, np.float32) for number in range(3000)}
    write_arrays(path, arrays, {f"text {number}": f"{number} " * number for number in range(50)})
    found, attributes = read_arrays(path)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[key], arrays[key]) for key in arrays)
    assert attributes["text 49"] == "49 " * 49


def test_names_in_several_attributes_are_read(tmp_path):
    """Keras splits what would be longer than 64 kB."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layer")
        group.attrs["weight_names0"] = [b"layer/kernel:0"]
        group.attrs["weight_names1"] = [b"layer/bias:0"]
        for name in ("kernel", "bias"):
            group[f"layer/{name}:0"] = np.ones(2, np.float32)
    assert sorted(read_arrays(path)[0]) == ["layer/bias", "layer/kernel"]


def test_a_file_whose_parts_lie_over_each_other_ends_soon(weights):
    """Each of 3000 arrays is described at the same place, after 60,000 messages that say nothing."""

    def message(kind, body):
        return struct.pack("<HHB3x", kind, len(body), 0) + body

    content = bytearray(weights.read_bytes())
    space = struct.pack("<BBB5x", 1, 0, 0)
    type_ = struct.pack("<BBBBIHHBBBBI", 0x11, 0x20, 0x1F, 0, 4, 0, 32, 23, 8, 0, 23, 127)
    values = struct.pack("<BBQQ", 3, 1, 0, 4)
    shared = message(0, b"") * 60_000 + message(1, space) + message(3, type_) + message(8, values)
    more = message(0x10, struct.pack("<QQ", len(content), len(shared)))
    content += shared
    entries, nodes = [], []
    for _ in range(3000):
        entries.append(struct.pack("<QQII16x", 8, len(content), 0, 0))
        content += struct.pack("<BxHII4x", 1, 60_004, 1, len(more)) + more
    for start in range(0, 3000, 1000):
        nodes.append(len(content))
        content += b"SNOD\1\0" + struct.pack("<H", 1000) + b"".join(entries[start : start + 1000])
    tree, heap = content.index(b"TREE"), content.index(b"HEAP")
    new = len(content)
    content += struct.pack("<4sBBHQQ", b"TREE", 0, 0, len(nodes), 2**64 - 1, 2**64 - 1)
    content += b"".join(struct.pack("<QQ", 8, node) for node in nodes) + bytes(8)
    content = content.replace(struct.pack("<QQ", tree, heap), struct.pack("<QQ", new, heap))
    content[40:48] = struct.pack("<Q", len(content))
    weights.write_bytes(content)
    start = time.process_time()
    with pytest.raises(CheckpointFormatError, match="its parts lie over each other"):
        read_arrays(weights)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (struct.pack("<BBBBI", 0x13, 1, 0, 0, 14), struct.pack("<BBBBI", 0x13, 1, 0, 0, 2**32 - 1), "4294967295 bytes"),
        (struct.pack("<QQ", 2**14 + 1, 3), struct.pack("<QQ", 2**63, 0), "an empty array of shape"),
        (struct.pack("<QQ", 2**14 + 1, 3), struct.pack("<QQ", 2**63, 2**63), "an array has 196620 bytes"),
    ],
    ids=["a text", "an empty array", "an array"],
)
def test_sizes_that_numpy_does_not_take_are_refused(weights, old, new, message):
    with h5py.File(weights, "a") as file:
        file.attrs["text"] = np.bytes_("fourteen bytes")
        file.create_dataset("array", data=np.zeros((2**14 + 1, 3), np.float32), maxshape=None)
    content = weights.read_bytes()
    assert old in content
    weights.write_bytes(content.replace(old, new))
    with pytest.raises(CheckpointFormatError, match=message):
        read_arrays(weights)


def test_many_references_to_one_long_text_are_refused(weights):
    """4000 of them in a header of 64 kB, to a text of more than a megabyte."""
    with h5py.File(weights, "a") as file:
        file.attrs["long"] = "x" * 1_234_567
        file.attrs.create("many", ["ab"] * 4000, dtype=h5py.string_dtype())
    content = weights.read_bytes()
    place, short = content.index(struct.pack("<I", 1_234_567), content.index(b"long\0")), struct.pack("<I", 2)
    long = content[place : place + 16]
    start = content.index(b"many\0")
    while not content[start] == content[start + 16] == content[start + 32] == 2 or content[start : start + 4] != short:
        start += 1
    weights.write_bytes(content[:start] + long * 4000 + content[start + 16 * 4000 :])
    with pytest.raises(CheckpointFormatError, match="its texts are longer than it is"):
        read_arrays(weights)


@pytest.mark.parametrize("count", [160, pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_no_mutation_of_a_rich_file_ends_the_process(count, pytestconfig):
    """Of eight files of 160 to 260 kB; those that crash the library are among them."""
    command = [sys.executable, "tests/fuzz/fuzz_h5.py", "--count", str(count)]
    root = pytestconfig.rootpath
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert sum(summary["outcomes"].values()) == count
    assert min(summary["bytes"].values()) > 64 * 1024
    assert any(name.endswith("crashed") for name in summary["outcomes"])
    assert "keras: crashed" not in summary["outcomes"]
    assert not any(name.endswith("stopped") for name in summary["outcomes"])
