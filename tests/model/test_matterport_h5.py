"""Weights files: matterport's layout, and files that are damaged or malicious."""

import errno

import h5py
import numpy as np
import pytest

from maskrcnn.checkpoints.matterport_h5 import group_of, read_arrays, write_arrays
from maskrcnn.errors import CheckpointFormatError, CheckpointNotFoundError
from runtime.errors import OutputError

ARRAYS = {
    "conv1/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "conv1/bias": np.array([-1.5, 0.25], np.float32),
    "bn_conv1/gamma": np.ones(3, np.float32),
    "rpn_conv_shared/kernel": np.full((3, 3, 2), 0.5, np.float32),
    "rpn_class_raw/bias": np.zeros(6, np.float32),
    "scalar/step": np.float32(7).reshape(()),
}


def same(found, expected):
    return found.keys() == expected.keys() and all(np.array_equal(found[k], expected[k]) for k in found)


def refused(path, message, error=CheckpointFormatError):
    with pytest.raises(error, match=message) as caught:
        read_arrays(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def genuine(tmp_path):
    """A small file in the original layout."""
    path = tmp_path / "genuine.h5"
    write_arrays(path, ARRAYS)
    return path


@pytest.fixture
def own(tmp_path):
    """The same with a configuration, and therefore a digest."""
    path = tmp_path / "own.weights.h5"
    write_arrays(path, ARRAYS, {"maskrcnn_config": '{"name": "naïve"}'})
    return path


def test_genuine_file_and_back(genuine):
    arrays, attributes = read_arrays(genuine)
    assert same(arrays, ARRAYS)
    assert attributes == {"backend": "tensorflow", "keras_version": "2.2.5"}


def test_own_file_and_back(own):
    arrays, attributes = read_arrays(own)
    assert same(arrays, ARRAYS)
    assert attributes["maskrcnn_config"] == '{"name": "naïve"}'


def test_layout_is_keras_2s(genuine):
    with h5py.File(genuine) as file:
        assert file.attrs["layer_names"].tolist() == [b"conv1", b"bn_conv1", b"rpn_model", b"scalar"]
        assert file["conv1"].attrs["weight_names"].tolist() == [b"conv1/kernel:0", b"conv1/bias:0"]
        names = file["rpn_model"].attrs["weight_names"].tolist()
        assert names == [b"rpn_conv_shared/kernel:0", b"rpn_class_raw/bias:0"]
        dataset = file["conv1/conv1/kernel:0"]
        assert dataset.dtype == np.dtype("<f4")
        assert np.array_equal(dataset, ARRAYS["conv1/kernel"])
        assert file["rpn_model/rpn_conv_shared/kernel:0"].shape == (3, 3, 2)


def test_groups():
    assert group_of("rpn_conv_shared") == "rpn_model"
    assert group_of("mrcnn_mask") == "mrcnn_mask"


def test_text_attributes_may_be_bytes_or_text_and_others_are_ignored(genuine):
    with h5py.File(genuine, "a") as file:
        file.attrs["text"] = "a"
        file.attrs["bytes"] = b"b"
        file.attrs["number"] = 3
    attributes = read_arrays(genuine)[1]
    assert (attributes["text"], attributes["bytes"]) == ("a", "b")
    assert "number" not in attributes


def test_half_and_double_precision_are_read(genuine):
    with h5py.File(genuine, "a") as file:
        for dtype in ("float16", "float64"):
            group = file.create_group(dtype)
            group.attrs["weight_names"] = [b"x/kernel:0"]
            group.create_dataset("x/kernel:0", data=np.array([0.5, 2], dtype))
    arrays, _ = read_arrays(genuine)
    for dtype in ("float16", "float64"):
        assert arrays[f"{dtype}/kernel"].dtype == np.float32
        assert arrays[f"{dtype}/kernel"].tolist() == [0.5, 2]


def test_missing(tmp_path):
    refused(tmp_path / "absent.h5", "there is no checkpoint", CheckpointNotFoundError)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "absent.h5")


def test_folder(tmp_path):
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>Not Found</html>" * 20, "not an HDF5 file"),
        (b"PK\x03\x04" + bytes(100), "not an HDF5 file"),
        (b"\x89HDF", "not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "truncated or damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "truncated or damaged"),
    ],
)
def test_not_a_weight_file(tmp_path, content, message):
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    refused(path, message)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
def test_truncated(genuine, share):
    content = genuine.read_bytes()
    genuine.write_bytes(content[: int(len(content) * share)])
    refused(genuine, "truncated or damaged")


def test_truncated_by_one_byte(genuine):
    genuine.write_bytes(genuine.read_bytes()[:-1])
    refused(genuine, "truncated or damaged")


def test_hdf5_without_weights(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file.create_group("images").create_dataset("a", data=np.ones(3))
        file["top"] = np.ones(3)
    refused(path, "without Keras layer weights")


def test_a_flipped_byte_of_a_weight_is_found(own):
    with h5py.File(own) as file:
        places = [
            file[name].id.get_offset() + byte
            for name in ("conv1/conv1/kernel:0", "rpn_model/rpn_conv_shared/kernel:0")
            for byte in (0, 3, 41)
        ]
    content = own.read_bytes()
    for place in places:
        own.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        refused(own, "damaged: its weights differ from the digest")


def test_a_flipped_byte_of_the_configuration_is_found(own):
    content = own.read_bytes()
    assert content.count(b'{"name"') == 1
    own.write_bytes(content.replace(b'{"name"', b'{"nane"'))
    refused(own, "damaged")


def test_whatever_byte_is_flipped_the_weights_are_right_or_refused(own):
    content = own.read_bytes()
    refusals = 0
    for place in range(0, len(content), 41):
        own.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            arrays, attributes = read_arrays(own)
        except CheckpointFormatError:
            refusals += 1
        else:
            assert same(arrays, ARRAYS)
            assert attributes["maskrcnn_config"] == '{"name": "naïve"}'
    assert refusals > 20


def edited(path, edit):
    with h5py.File(path, "a") as file:
        edit(file)
    return path


def replace_kernel(file, **options):
    group = file["conv1/conv1"]
    del group["kernel:0"]
    return group.create_dataset("kernel:0", **options)


@pytest.fixture
def secret(tmp_path):
    """A file that a weights file must not make us read."""
    path = tmp_path / "secret.h5"
    write_arrays(path, {"conv1/kernel": np.full((2, 3, 4), 42, np.float32)})
    return path


def test_an_external_link_to_an_array_is_refused(genuine, secret):
    def edit(file):
        del file["conv1/conv1/kernel:0"]
        file["conv1/conv1/kernel:0"] = h5py.ExternalLink(str(secret), "/conv1/conv1/kernel:0")

    refused(edited(genuine, edit), "has a link at '/conv1/conv1/kernel:0'")


@pytest.mark.parametrize("link", ["external", "soft"])
def test_a_link_to_a_layer_is_refused(genuine, secret, link):
    target = h5py.ExternalLink(str(secret), "/conv1") if link == "external" else h5py.SoftLink("/bn_conv1")

    def edit(file):
        del file["conv1"]
        file["conv1"] = target

    refused(edited(genuine, edit), "has a link at '/conv1'")


def test_a_link_to_all_weights_is_refused(genuine, secret):
    def edit(file):
        file["model_weights"] = h5py.ExternalLink(str(secret), "/")

    refused(edited(genuine, edit), "has a link at '/model_weights'")


def test_external_storage_is_refused(genuine, secret):
    def edit(file):
        replace_kernel(file, shape=(8,), dtype="f4", external=[(str(secret), 0, 32)])

    refused(edited(genuine, edit), "outside itself")


def test_a_virtual_dataset_is_refused(genuine, secret):
    def edit(file):
        layout = h5py.VirtualLayout((2, 3, 4), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "conv1/conv1/kernel:0", (2, 3, 4))
        del file["conv1/conv1/kernel:0"]
        file["conv1/conv1"].create_virtual_dataset("kernel:0", layout)

    refused(edited(genuine, edit), "outside itself")


def test_a_declared_size_that_the_file_cannot_hold_is_refused(genuine):
    def edit(file):
        replace_kernel(file, shape=(10**6, 10**6), dtype="f4", chunks=(64, 64))

    refused(edited(genuine, edit), "declares more than 4[0-9]{12} bytes of arrays")


@pytest.mark.parametrize("dtype", ["i4", "S4", "c8", "bool"])
def test_numbers_that_are_not_floating_point_are_refused(genuine, dtype):
    def edit(file):
        replace_kernel(file, data=np.zeros(2, dtype))

    refused(edited(genuine, edit), "expected floating-point")


@pytest.mark.parametrize("name", ["conv1/other:0", "conv1", "", "..", "/conv1/conv1/kernel:0/x"])
def test_a_weight_name_without_an_array_is_refused(genuine, name):
    def edit(file):
        file["conv1"].attrs["weight_names"] = [name.encode()]

    refused(edited(genuine, edit), "genuine.h5")


@pytest.mark.parametrize("names", [5, 1.5, h5py.Empty("f"), "abc", [b"\xff\xfe"], np.ones((2, 2))], ids=str)
def test_weight_names_of_another_kind_are_refused(genuine, names):
    def edit(file):
        file["conv1"].attrs["weight_names"] = names

    refused(edited(genuine, edit), "genuine.h5")


def test_an_array_in_place_of_all_weights_is_refused(genuine):
    def edit(file):
        file["model_weights"] = np.ones(3)

    refused(edited(genuine, edit), "genuine.h5")


def test_an_existing_file_is_not_replaced_unasked(genuine):
    before = genuine.read_bytes()
    with pytest.raises(OutputError, match="already exists"):
        write_arrays(genuine, {"a/kernel": np.ones(1, np.float32)})
    assert genuine.read_bytes() == before
    write_arrays(genuine, {"a/kernel": np.ones(1, np.float32)}, overwrite=True)
    assert list(read_arrays(genuine)[0]) == ["a/kernel"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError(errno.ENOSPC, "full"), OutputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(genuine, monkeypatch, error, expected):
    before, created = genuine.read_bytes(), []
    create = h5py.Group.create_dataset

    def fail_on_the_third(self, *args, **kwargs):
        created.append(args[0])
        if len(created) == 3:
            raise error
        return create(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", fail_on_the_third)
    with pytest.raises(expected):
        write_arrays(genuine, ARRAYS, {"maskrcnn_config": "{}"}, overwrite=True)
    assert len(created) == 3
    assert genuine.read_bytes() == before
    assert list(genuine.parent.iterdir()) == [genuine]


def test_a_folder_that_does_not_exist_is_made(tmp_path):
    path = tmp_path / "new" / "weights.h5"
    write_arrays(path, ARRAYS)
    assert same(read_arrays(path)[0], ARRAYS)
