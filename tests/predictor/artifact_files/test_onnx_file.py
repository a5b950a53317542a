"""A sealed `.onnx` file: every ONNX tool reads it, and no damage goes unnoticed."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, strategies as st
from onnx import TensorProto, helper, numpy_helper

from runtime.artifact import Metadata
from runtime.artifact_files.onnx_file import (
    METADATA_KEY,
    content_digest,
    metadata_entry,
    read_sealed,
    recorded_file_digest,
    seal,
)
from runtime.artifact_files.read import read_metadata
from runtime.errors import ArtifactCorruptError, ArtifactError, ForeignArtifactError

DIGEST_KEY = "maskrcnn_sha256"
METADATA = json.dumps({"name": "tiny", "sign": "\N{SNOWMAN}", "long": "x" * 300}, ensure_ascii=False)


def tiny_model(**metadata):
    """x + weights, small enough to damage at every byte."""
    weights = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weights"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    return model.SerializeToString()


MODEL = tiny_model()
SEALED = seal(MODEL, METADATA)


@pytest.fixture
def file(tmp_path):
    """Write bytes to a file and return its path."""
    path = tmp_path / "model.onnx"

    def write(content):
        path.write_bytes(content)
        return path

    return write


def is_refused(path):
    """Whether reading ends in one of our errors; any other error is a failure of the test."""
    try:
        read_sealed(path)
    except ArtifactError:
        return True
    return False


def refusal(path, kind=ArtifactError):
    with pytest.raises(kind) as refused:
        read_sealed(path)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_round_trip(file):
    path = file(SEALED)
    assert read_sealed(path) == METADATA
    assert read_sealed(path, verify_digest=False) == METADATA


def test_model_is_kept_byte_for_byte():
    assert SEALED.startswith(MODEL)


def test_empty_metadata_text(file):
    assert read_sealed(file(seal(MODEL, ""))) == ""


def test_metadata_of_other_tools_stays(file):
    path = file(seal(tiny_model(author="someone"), METADATA))
    assert read_sealed(path) == METADATA
    assert [p.key for p in onnx.load(path).metadata_props] == ["author", METADATA_KEY, DIGEST_KEY]


def test_onnx_reads_the_sealed_file(file):
    model = onnx.load(file(SEALED))
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props}[METADATA_KEY] == METADATA
    assert [node.op_type for node in model.graph.node] == ["Add"]
    del model.metadata_props[:]
    assert model.SerializeToString() == MODEL


def test_onnx_runtime_reads_the_sealed_file(file):
    session = ort.InferenceSession(file(SEALED), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map[METADATA_KEY] == METADATA
    assert DIGEST_KEY in session.get_modelmeta().custom_metadata_map
    x = np.ones((4, 8), np.float32)
    plain = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], plain.run(None, {"x": x})[0])


def test_exported_artifact_is_sealed_and_whole(onnx_artifact):
    model = onnx.load(onnx_artifact)
    props = {p.key: p.value for p in model.metadata_props}
    assert set(props) == {METADATA_KEY, DIGEST_KEY}
    metadata = Metadata.from_json(props[METADATA_KEY], "here")
    assert metadata == read_metadata(onnx_artifact)
    assert metadata.verdict["passed"] is True
    assert metadata.checkpoint["name"] == "demo model"
    assert all(not tensor.external_data for tensor in model.graph.initializer)


def test_entries_are_typed_by_hand():
    # Field 14, 6 bytes: field 1, field 2.
    assert metadata_entry("a", "b") == bytes.fromhex("72 06 0a 01 61 12 01 62")
    digest = hashlib.sha256(MODEL + metadata_entry(METADATA_KEY, METADATA)).hexdigest()
    assert MODEL + metadata_entry("maskrcnn", METADATA) + metadata_entry("maskrcnn_sha256", digest) == SEALED


def test_digests_of_a_sound_and_of_a_changed_file(file):
    digest = hashlib.sha256(SEALED[: -len(metadata_entry(DIGEST_KEY, "0" * 64))]).hexdigest()
    path = file(SEALED)
    assert recorded_file_digest(path) == content_digest(path, True) == content_digest(path, False) == digest
    damaged = bytearray(SEALED)
    damaged[MODEL.index(b"tiny")] ^= 1
    path = file(damaged)
    assert recorded_file_digest(path) == content_digest(path, True) == digest
    assert (
        content_digest(path, False) == hashlib.sha256(damaged[: -len(metadata_entry(DIGEST_KEY, "0" * 64))]).hexdigest()
    )


@pytest.mark.parametrize("length", [127, 128, 16383, 16384, 70_000])
def test_metadata_of_every_length(file, length):
    """Lengths are written in one, two and three bytes."""
    text = "x" * length
    assert read_sealed(file(seal(MODEL, text))) == text
    assert read_sealed(file(seal(MODEL + metadata_entry(text, "note"), METADATA))) == METADATA


@pytest.mark.parametrize(
    "front",
    [
        bytes.fromhex("08 08"),  # a number in one byte
        bytes.fromhex("28 ff ff ff ff ff ff ff ff ff 01"),  # the largest number, in ten
        bytes.fromhex("a9 06 01 02 03 04 05 06 07 08"),  # eight bytes, which may look like a length
        bytes.fromhex("ad 06 72 7f ff ff"),  # four
        bytes.fromhex("a2 06 00"),  # none
        bytes.fromhex("a2 06 80 80 40") + bytes(1 << 20),  # more than is read at a time
    ],
    ids=["byte", "number", "eight", "four", "nothing", "megabyte"],
)
def test_fields_of_every_kind_are_passed_over(file, front):
    whole = seal(front + MODEL, METADATA)
    assert read_sealed(file(whole)) == METADATA
    damaged = bytearray(whole)
    damaged[len(front) + MODEL.index(b"tiny")] ^= 1
    refusal(file(damaged), ArtifactCorruptError)


@pytest.mark.parametrize(
    ("front", "told"),
    [
        (bytes.fromhex("0b"), "is truncated, or not an ONNX file"),  # a group begins
        (bytes.fromhex("0e 01"), "is truncated, or not an ONNX file"),  # no such kind
        (bytes.fromhex("02 00"), "is truncated, or not an ONNX file"),  # field 0
        (bytes.fromhex("08") + b"\xff" * 10 + b"\x01", "is truncated, or not an ONNX file"),  # a number without end
        (bytes.fromhex("72 04 0a 01 61 12"), "its metadata is damaged"),  # a pair cut short
        (bytes.fromhex("72 06 0a 01 ff 12 01 62"), "its metadata is damaged"),  # not UTF-8
    ],
)
def test_what_no_onnx_file_has_is_named(file, front, told):
    assert told in refusal(file(front + SEALED), ArtifactCorruptError)


def test_truncated_at_every_byte(file):
    for length in range(len(SEALED)):
        assert is_refused(file(SEALED[:length])), f"cut off after {length} of {len(SEALED)}"


def test_truncated_artifact(onnx_artifact, file):
    whole = onnx_artifact.read_bytes()
    for length in (*np.linspace(1, len(whole) - 201, 40, dtype=int), *range(len(whole) - 200, len(whole))):
        assert is_refused(file(whole[:length])), f"cut off after {length} of {len(whole)}"


def test_one_flipped_bit_anywhere(file):
    for position in range(len(SEALED)):
        for bit in (0, 7):
            damaged = bytearray(SEALED)
            damaged[position] ^= 1 << bit
            assert is_refused(file(damaged)), f"bit {bit} of byte {position} of {len(SEALED)}"


def test_one_flipped_byte_in_the_artifact(onnx_artifact, file):
    whole = onnx_artifact.read_bytes()
    rng = np.random.default_rng(0)
    path = file(whole)
    with path.open("r+b") as stream:
        for position in (*rng.integers(0, len(whole), 100), *rng.integers(len(whole) - 200, len(whole), 100)):
            stream.seek(position)
            stream.write(bytes([whole[position] ^ rng.integers(1, 256)]))
            stream.flush()
            assert is_refused(path), f"byte {position} of {len(whole)}"
            stream.seek(position)
            stream.write(whole[position : position + 1])
    assert read_metadata(path) == read_metadata(onnx_artifact)  # all changes were taken back


@pytest.mark.parametrize("extra", [b"\x00", b"\n", metadata_entry("note", "added"), MODEL, SEALED[-40:]])
def test_something_added_behind(file, extra):
    refusal(file(SEALED + extra))


def test_metadata_exchanged_for_that_of_another_model(file):
    forged = MODEL + metadata_entry(METADATA_KEY, "{}") + SEALED[len(seal(MODEL, METADATA)) - 85 :]
    refusal(file(forged), ArtifactCorruptError)


def test_message_of_a_changed_file_says_what_happened_and_what_to_do(file):
    damaged = bytearray(SEALED)
    damaged[MODEL.index(b"tiny")] ^= 1
    message = refusal(file(damaged), ArtifactCorruptError)
    assert "changed after it was exported" in message
    assert "export it again" in message


def test_changed_weights_are_read_where_checking_is_turned_off(file):
    damaged = bytearray(SEALED)
    damaged[MODEL.index(b"tiny")] ^= 1
    assert read_sealed(file(damaged), verify_digest=False) == METADATA


def test_empty_file(file):
    assert "empty" in refusal(file(b""), ArtifactCorruptError)


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>Not found</body></html>\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 6089312\n",
        b"\x89HDF\r\n\x1a\n" + bytes(500),
        b"PK\x03\x04" + bytes(100),
        b"\xff" * 50,
        bytes(50),
    ],
)
def test_another_kind_of_file(file, content):
    refusal(file(content), ArtifactError)


@pytest.mark.parametrize(
    "content",
    [
        MODEL,
        tiny_model(author="someone"),
        MODEL + metadata_entry(METADATA_KEY, METADATA),
        MODEL + metadata_entry(DIGEST_KEY, "0" * 64),
    ],
)
def test_foreign_onnx_file(file, content):
    message = refusal(file(content), ForeignArtifactError)
    assert "did not write" in message
    assert "maskrcnn export onnx" in message
    with pytest.raises(ForeignArtifactError):
        read_sealed(file(content), verify_digest=False)


PIECES = st.binary(max_size=40) | st.sampled_from([MODEL, SEALED, SEALED[-85:], metadata_entry("a", "b")])


@given(pieces=st.lists(PIECES, max_size=4), verify=st.booleans())
def test_random_bytes_give_typed_errors_or_the_metadata(tmp_path_factory, pieces, verify):
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(b"".join(pieces))
    try:
        text = read_sealed(path, verify_digest=verify)
    except ArtifactError:
        return
    assert text == METADATA
    if verify:
        assert b"".join(pieces) == SEALED
