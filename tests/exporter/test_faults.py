"""Exports over a good artifact that are killed or meet a full or read-only disk; artifacts damaged later."""

import os
import sys
from collections import Counter
from contextlib import suppress

import pytest
from fake_artifacts import OLD, VERDICT, metadata, recorded, write_artifact
from faults import SmallDisk, content_of, file_size_limit, flips, in_clean_process, truncations
from publish_kills import NAMES, export

from runtime.artifact_files.read import read_metadata
from runtime.artifact_files.savedmodel_folder import MANIFEST
from runtime.errors import ArtifactError, OutputError

KINDS = pytest.mark.parametrize("directory", [False, True], ids=["onnx", "savedmodel"])
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="folders are exchanged in one step on Linux alone")


@LINUX
@KINDS
def test_killed_at_every_step_the_old_or_the_new_one_stands_there(directory):
    moments, states, leftovers = in_clean_process("publish_kills", "kill_at_every_step", directory)
    steps = Counter(moment.removeprefix("before ") for moment in moments if moment.startswith("before "))
    assert steps["fsync"] >= 4  # artifact, its folder, verdict, its folder
    assert steps["exchange"] == int(directory)
    assert steps["replace"] + steps["rename"] >= (1 if directory else 2)
    assert len(states) == len(moments) > 15
    # The old artifact until the step that puts the new one in place, and the new one afterwards.
    turn = states.index("new")
    assert moments[turn] == ("after exchange" if directory else "after replace")
    assert set(states[:turn]) == {"old"}
    assert set(states[turn:]) == {"new"}
    assert leftovers > 5


@LINUX
@pytest.mark.parametrize("kills", [25, pytest.param(100, marks=pytest.mark.slow)])
@KINDS
def test_killed_at_random_times_the_old_or_the_new_one_stands_there(directory, kills):
    states = in_clean_process("publish_kills", "kill_at_random_times", directory, kills)
    assert len(states) == kills
    assert states.count("old") > kills // 5


@pytest.fixture
def old(tmp_path, request):
    """A folder with a good artifact in each format."""
    for directory, name in ((False, "file"), (True, "folder")):
        (tmp_path / name).mkdir()
        export(tmp_path / name / NAMES[0], directory, OLD)
    return tmp_path


@KINDS
def test_files_that_cannot_grow_leave_the_old_artifact(old, directory):
    folder = old / ("folder" if directory else "file")
    before = content_of(folder)
    largest = max(map(len, before.values())) - 20  # the new one is a little smaller
    for size in range(0, largest, largest // 40):
        with pytest.raises(OutputError, match="File too large") as refused, file_size_limit(size):
            export(folder / NAMES[0], directory)
        assert "\n" not in str(refused.value)
        assert content_of(folder) == before, f"files of up to {size} bytes"
    export(folder / NAMES[0], directory)
    assert read_metadata(folder / NAMES[0]).verdict == recorded(VERDICT, folder / NAMES[0])


@pytest.fixture
def small_disk():
    """A disk of 64 kilobytes."""
    disk = SmallDisk.make(64)
    if disk is None:
        pytest.skip("mounting a file system of 64 kilobytes is not allowed here")
    yield disk
    disk.remove()


@KINDS
def test_a_full_disk_leaves_the_old_artifact(small_disk, directory):
    output = small_disk.folder / NAMES[0]
    export(output, directory, OLD)
    ballast, refusals = small_disk.folder / "ballast", 0
    for used in range(0, 64 * 1024, 4096):  # less room each time, so that the disk is full earlier each time
        with suppress(OSError):
            ballast.write_bytes(bytes(used))
        before = content_of(small_disk.folder)
        try:
            export(output, directory)
        except OutputError as error:
            refusals += 1
            assert "No space left on device" in str(error)  # noqa: PT017 - with enough room it succeeds
            assert content_of(small_disk.folder) == before
        else:
            export(output, directory, OLD)
    assert refusals > 2


@KINDS
def test_a_read_only_disk_leaves_the_old_artifact(small_disk, directory):
    output = small_disk.folder / NAMES[0]
    export(output, directory, OLD)
    before = content_of(small_disk.folder)
    small_disk.make_read_only()
    with pytest.raises(OutputError, match=r"cannot write .*(no permission|Read-only)"):
        export(output, directory)
    assert content_of(small_disk.folder) == before


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
@KINDS
def test_a_folder_without_permission_leaves_the_old_artifact(old, directory):
    folder = old / ("folder" if directory else "file")
    before = content_of(folder)
    folder.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission"):
            export(folder / NAMES[0], directory)
    finally:
        folder.chmod(0o700)
    assert content_of(folder) == before


def files_of(artifact):
    return [artifact] if artifact.is_file() else sorted(item for item in artifact.rglob("*") if item.is_file())


def assert_all_refused(artifact, damaged_versions):
    """Assert that each damaged version of each file is rejected; return their number."""
    count = 0
    for file in files_of(artifact):
        whole = file.read_bytes()
        for where, damaged in damaged_versions(whole):
            if damaged == whole:
                continue
            file.write_bytes(damaged)
            with pytest.raises(ArtifactError) as refused:
                read_metadata(artifact)
            assert str(artifact) in str(refused.value), f"{where} of {file}"
            count += 1
        file.write_bytes(whole)
    read_metadata(artifact)  # all damage was undone
    return count


@KINDS
def test_flipped_bytes_and_truncations_are_detected(tmp_path, directory):
    artifact = tmp_path / "model"
    if directory:
        artifact.mkdir()
    write_artifact(artifact, metadata(directory, VERDICT))
    files = len(files_of(artifact))
    assert assert_all_refused(artifact, lambda whole: flips(whole, 60)) == 60 * files
    assert assert_all_refused(artifact, truncations) == 100 * files


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["onnx", "savedmodel"])
def test_a_thousand_flipped_bytes_of_a_real_artifact_are_detected(request, tmp_path, format_name):
    original = request.getfixturevalue(f"{format_name}_artifact")
    contents = content_of(original)
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    artifact = tmp_path / original.name
    assert artifact.is_file() or (artifact / MANIFEST).is_file()
    total = sum(map(len, contents.values()))
    # A thousand, in proportion to size, and at least twenty in each file.
    count = assert_all_refused(artifact, lambda whole: flips(whole, max(20, -(-1000 * len(whole) // total))))
    assert count >= 1000
    assert assert_all_refused(artifact, truncations) == 100 * len(contents)
