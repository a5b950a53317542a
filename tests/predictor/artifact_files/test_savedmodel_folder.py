"""A sealed SavedModel folder: whole, or refused with the name of the file that is not as it was."""

import hashlib
import json
import shutil
import sys

import pytest

from runtime.artifact_files.read import read_metadata
from runtime.artifact_files.savedmodel_folder import MANIFEST, read_sealed_folder, recorded_folder_digest, seal_folder
from runtime.errors import ArtifactCorruptError, ArtifactError, ForeignArtifactError

METADATA = json.dumps({"name": "tiny", "sign": "\N{SNOWMAN}"}, ensure_ascii=False)
FILES = {
    "saved_model.pb": b"graph",
    "fingerprint.pb": b"print",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"\x00\x01weights",
}


@pytest.fixture
def unsealed(tmp_path):
    """A folder with the files of a SavedModel."""
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def folder(unsealed):
    seal_folder(unsealed, METADATA)
    return unsealed


def refusal(folder, kind=ArtifactCorruptError, **options):
    with pytest.raises(ArtifactError) as refused:
        read_sealed_folder(folder, **options)
    assert type(refused.value) is kind
    message = str(refused.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_lists_as_deep_as_can_be_read_but_not_written_are_refused(folder):
    limit = sys.getrecursionlimit()
    for depth in range(limit - 150, limit):  # where that is depends on the functions around
        (folder / MANIFEST).write_text(
            '{"metadata": {}, "files": {"a": %s}, "sha256": ""}' % ("[" * depth + "]" * depth)
        )
        refusal(folder)


def test_round_trip(folder):
    assert json.loads(read_sealed_folder(folder)) == json.loads(METADATA)
    assert json.loads(read_sealed_folder(folder, verify_digest=False)) == json.loads(METADATA)


def test_sealed_twice_is_still_sound(folder):
    seal_folder(folder, '{"name": "again"}')
    assert json.loads(read_sealed_folder(folder)) == {"name": "again"}


def test_a_moved_and_renamed_folder_is_still_sound(folder, tmp_path):
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert json.loads(read_sealed_folder(moved)) == json.loads(METADATA)


def test_manifest_lists_every_other_file_with_its_digest(folder):
    recorded = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    assert recorded == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def test_manifest_is_text_for_people_and_holds_its_own_digest(folder):
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    assert "\N{SNOWMAN}" in text
    assert text.count("\n") > len(FILES)
    assert text.startswith('{\n "metadata": {\n  "name"')  # one space for each level
    assert text.endswith("}\n")
    content = json.loads(text)
    recorded = content.pop("sha256")
    assert recorded == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert recorded_folder_digest(folder) == recorded
    (folder / "saved_model.pb").write_bytes(b"other")
    assert recorded_folder_digest(folder) == recorded


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:-1] + b"?", lambda c: c + b"\n", lambda c: b""])
def test_changed_file(folder, name, damage):
    (folder / name).write_bytes(damage(FILES[name]))
    assert f"{name} is changed" in refusal(folder)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(folder, name):
    (folder / name).unlink()
    assert f"{name} is missing" in refusal(folder)


@pytest.mark.parametrize("name", ["variables/extra", "assets/vocabulary.txt", "assets.extra/tf_serving_warmup", ".hid"])
def test_added_file(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"new")
    assert f"{name} is not part of it" in refusal(folder)


def test_exchanged_files(folder):
    index, data = (folder / name for name in list(FILES)[2:])
    index.write_bytes(FILES["variables/variables.data-00000-of-00001"])
    data.write_bytes(FILES["variables/variables.index"])
    assert "is changed" in refusal(folder)


def test_changes_are_not_noticed_where_checking_is_turned_off(folder):
    (folder / "saved_model.pb").write_bytes(b"other")
    assert json.loads(read_sealed_folder(folder, verify_digest=False)) == json.loads(METADATA)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'"files"', b"3", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"files": {}}']
)
@pytest.mark.parametrize("verify", [True, False])
def test_manifest_that_cannot_be_read(folder, text, verify):
    (folder / MANIFEST).write_bytes(text)
    assert "damaged" in refusal(folder, verify_digest=verify)


def test_manifest_cut_off_at_every_byte(folder):
    whole = (folder / MANIFEST).read_bytes().rstrip()
    for length in range(len(whole)):
        (folder / MANIFEST).write_bytes(whole[:length])
        refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metadata", {"name": "another"}),
        ("files", {}),
        ("sha256", "0" * 64),
        ("sha256", None),
        ("note", "added"),
    ],
)
def test_manifest_that_was_edited(folder, key, value):
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8")) | {key: value}
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    assert "changed after the export" in refusal(folder)


@pytest.mark.parametrize("files", [[], None, 3, "saved_model.pb"])
def test_manifest_of_another_layout_with_a_fitting_digest(folder, files):
    content = {"metadata": json.loads(METADATA), "files": files}
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    assert "damaged" in refusal(folder)


def test_formatting_of_the_manifest_does_not_matter(folder):
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=4), encoding="utf-8")
    assert json.loads(read_sealed_folder(folder)) == json.loads(METADATA)


def test_foreign_savedmodel(unsealed):
    message = refusal(unsealed, ForeignArtifactError)
    assert "SavedModel that maskrcnn-export did not write" in message
    assert "maskrcnn export savedmodel" in message


def test_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    message = refusal(tmp_path, ForeignArtifactError)
    assert "is a folder that" in message


def test_manifest_that_is_a_folder(unsealed):
    (unsealed / MANIFEST).mkdir(parents=True)
    refusal(unsealed, ForeignArtifactError)


def test_exported_artifact_is_sealed_and_whole(savedmodel_artifact):
    metadata = read_metadata(savedmodel_artifact)
    assert metadata.format == "savedmodel"
    assert metadata.opset is None
    assert metadata.verdict["passed"] is True
    recorded = json.loads((savedmodel_artifact / MANIFEST).read_text(encoding="utf-8"))["files"]
    assert {"saved_model.pb", "variables/variables.index"} < set(recorded)


def test_one_changed_byte_of_the_weights_is_named(savedmodel_artifact, tmp_path):
    copy = shutil.copytree(savedmodel_artifact, tmp_path / "copy")
    name = "variables/variables.data-00000-of-00001"
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert f"{name} is changed" in refusal(copy)
