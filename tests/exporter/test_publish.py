"""An artifact is verified before it is in place; a kill at any moment leaves the old one, or none."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_artifacts import OLD, VERDICT, metadata, recorded, write_artifact

from export.publish import publish
from runtime.artifact_files.read import read_metadata
from runtime.errors import ArtifactError, OutputError

REPOSITORY = Path(__file__).parents[2]
KINDS = pytest.mark.parametrize("directory", [False, True], ids=["file", "folder"])


def publish_fake(output, directory, *, judge=lambda _path: VERDICT, write=write_artifact, overwrite=False):
    return publish(output, metadata(directory), write, judge, overwrite=overwrite)


def names_in(folder):
    return sorted(item.name for item in folder.iterdir())


@KINDS
def test_artifact_is_judged_at_a_temporary_path(tmp_path, directory):
    output, seen = tmp_path / "model", []

    def judge(path):
        assert path.parent.parent == output.parent  # the same file system, so that the rename is one step
        assert not output.exists()
        assert read_metadata(path).verdict == {}
        seen.append(path)
        return VERDICT

    assert publish_fake(output, directory, judge=judge).to_dict() == recorded(VERDICT, output)
    assert len(seen) == 1
    assert not seen[0].exists()
    assert read_metadata(output).verdict == recorded(VERDICT, output)
    assert json.loads((tmp_path / "model.verdict.json").read_text()) == recorded(VERDICT, output)
    assert names_in(tmp_path) == ["model", "model.verdict.json"]


@KINDS
@pytest.mark.parametrize("stands", [False, True], ids=["nothing", "old artifact"])
def test_refused_artifact_never_appears(tmp_path, directory, stands):
    output = tmp_path / "model"
    if stands:
        publish_fake(output, directory, judge=lambda _path: OLD)
    before = names_in(tmp_path)

    def refuse(_path):
        raise ArithmeticError("not equal")

    with pytest.raises(ArithmeticError, match="not equal"):
        publish_fake(output, directory, judge=refuse, overwrite=True)
    assert names_in(tmp_path) == before
    if stands:
        assert read_metadata(output).verdict == recorded(OLD, output)
        assert json.loads((tmp_path / "model.verdict.json").read_text()) == recorded(OLD, output)


@KINDS
def test_artifact_that_cannot_be_read_back_never_appears(tmp_path, directory):
    def write(path, metadata):
        write_artifact(path, metadata)
        if metadata.verdict:  # spoiled after the judgement
            spoiled = path / "weights" if directory else path
            spoiled.write_bytes(spoiled.read_bytes()[:-1])

    with pytest.raises(ArtifactError):
        publish_fake(tmp_path / "model", directory, write=write)
    assert names_in(tmp_path) == []


@KINDS
def test_existing_output_is_not_replaced_unasked(tmp_path, directory):
    publish_fake(tmp_path / "model", directory, judge=lambda _path: OLD)
    with pytest.raises(OutputError, match="already exists"):
        publish_fake(tmp_path / "model", directory)
    assert read_metadata(tmp_path / "model").verdict == recorded(OLD, tmp_path / "model")
    publish_fake(tmp_path / "model", directory, overwrite=True)
    assert read_metadata(tmp_path / "model").verdict == recorded(VERDICT, tmp_path / "model")
    assert names_in(tmp_path) == ["model", "model.verdict.json"]


# The child stops at every moment and names it; the parent lets it continue or kills it there.
CHILD = """
import sys
from pathlib import Path
import fake_artifacts as here
from export.publish import publish

def pause(moment):
    print(moment, flush=True)
    sys.stdin.readline()

output, directory = sys.argv[1], sys.argv[2] == "folder"

def write(path, metadata):
    here.write_artifact(path, metadata, pause)

def judge(path):
    pause("judgement")
    return here.VERDICT

publish(Path(output), here.metadata(directory), write, judge, overwrite=True)
print("end", flush=True)
"""
MOMENTS = ["draft", "judgement", "final", "end"]


def run_until(moment, output, directory):
    """Start an export in a process of its own and kill it at a moment."""
    path = [str(REPOSITORY), str(REPOSITORY / "tests" / "support")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{CHILD}"]
    command += [str(output), "folder" if directory else "file"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        seen = []
        while not seen or seen[-1] != moment:
            line = child.stdout.readline()
            assert line, f"the child ended after {seen}"
            seen.append(line.strip())
            if seen[-1] != moment:
                child.stdin.write("\n")
                child.stdin.flush()
        if moment != "end":
            child.kill()
    assert child.returncode == (0 if moment == "end" else -signal.SIGKILL)
    return seen


@KINDS
def test_child_passes_every_moment(tmp_path, directory):
    """The moments of the tests below occur in an undisturbed export."""
    publish_fake(tmp_path / "model", directory, judge=lambda _path: OLD)
    assert run_until("end", tmp_path / "model", directory) == MOMENTS
    assert read_metadata(tmp_path / "model").verdict == recorded(VERDICT, tmp_path / "model")
    assert names_in(tmp_path) == ["model", "model.verdict.json"]


@KINDS
@pytest.mark.parametrize("moment", ["draft", "judgement", "final"])
def test_kill_leaves_the_old_artifact(tmp_path, directory, moment):
    output = tmp_path / "model"
    publish_fake(output, directory, judge=lambda _path: OLD)
    run_until(moment, output, directory)
    assert read_metadata(output).verdict == recorded(OLD, output)
    assert json.loads((tmp_path / "model.verdict.json").read_text()) == recorded(OLD, output)
    assert [name for name in names_in(tmp_path) if not name.startswith(".")] == ["model", "model.verdict.json"]
    publish_fake(output, directory, overwrite=True)  # removes what the kill left
    assert read_metadata(output).verdict == recorded(VERDICT, output)
    assert names_in(tmp_path) == ["model", "model.verdict.json"]


@KINDS
@pytest.mark.parametrize("moment", ["draft", "judgement", "final"])
def test_kill_leaves_nothing_where_nothing_was(tmp_path, directory, moment):
    output = tmp_path / "model"
    run_until(moment, output, directory)
    assert [name for name in names_in(tmp_path) if not name.startswith(".")] == []
    publish_fake(output, directory)
    assert names_in(tmp_path) == ["model", "model.verdict.json"]


def test_a_verdict_file_in_the_way_is_refused_before_anything_is_written(tmp_path):
    beside = tmp_path / "model.onnx.verdict.json"
    beside.write_text("of someone else")
    with pytest.raises(OutputError, match="already exists"):
        publish(tmp_path / "model.onnx", metadata(directory=False), None, None, overwrite=False)
    assert beside.read_text() == "of someone else"
    assert [path.name for path in tmp_path.iterdir()] == [beside.name]
