"""Folders of commands without --output: numbered, never one that exists, and resumed if the same command was cut."""

import multiprocessing
import os
from pathlib import Path

import pytest

from maskrcnn.runs.default_folder import folders, new_folder, not_input, resumed_or_new
from runtime.errors import OutputError

COMMAND = {"model": "demo", "paths": ["photos"], "every": 1}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def is_done(folder):
    return (folder / "results.json").exists()


def begun(command, *, end):
    """Run a command that writes a file, and the results if it comes to its end."""
    with resumed_or_new("predict", command, is_done, "predict") as folder:
        (folder / "run.json").touch()
        if end:
            (folder / "results.json").touch()
    return str(folder)


def test_folders_are_numbered():
    made = []
    for kind in ("predict", "train", "predict", "predict"):
        with new_folder(kind) as folder:
            made.append(folder.as_posix())
    assert made == ["runs/predict", "runs/train", "runs/predict-2", "runs/predict-3"]
    assert folders("predict") == [Path("runs", name) for name in ("predict-3", "predict-2", "predict")]


def test_the_next_number_is_above_all_others():
    """So that the newest folder has the highest one, also where others were removed or are files."""
    for name in ("predict-7", "predict-old", "predict-07", "predictions-9", "train-12"):
        Path("runs", name).mkdir(parents=True)
    Path("runs/predict-9").touch()
    with new_folder("predict") as folder:
        assert folder == Path("runs/predict-10")


def make(start, found):
    start.wait()
    with new_folder("predict") as folder:
        found.put(str(folder))


def test_two_processes_at_once_get_two_folders():
    context = multiprocessing.get_context("fork")
    start, found = context.Event(), context.Queue()
    processes = [context.Process(target=make, args=(start, found)) for _ in range(8)]
    for process in processes:
        process.start()
    start.set()
    names = {found.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert names == {"runs/predict", *(f"runs/predict-{n}" for n in range(2, 9))}


@pytest.mark.parametrize("error", [OutputError("no"), KeyboardInterrupt()])
def test_an_error_leaves_no_empty_folder(error):
    def fail(name):
        with new_folder("train") as folder:
            (folder / name).touch()
            raise error

    with pytest.raises(type(error)):
        fail(".lock")
    assert not Path("runs").exists()
    with pytest.raises(type(error)):
        fail("config.json")
    assert Path("runs/train").is_dir()


def test_the_same_command_is_resumed_until_it_is_done():
    assert begun(COMMAND, end=False) == begun(COMMAND, end=False) == begun(COMMAND, end=True) == "runs/predict"
    assert begun(COMMAND, end=True) == "runs/predict-2"


@pytest.mark.parametrize("change", [{"model": "other"}, {"paths": ["photos", "more"]}, {"every": 2}, {"new": True}])
def test_another_command_gets_another_folder(change):
    assert begun(COMMAND, end=False) == "runs/predict"
    assert begun(COMMAND | change, end=False) == "runs/predict-2"
    assert begun(COMMAND, end=False) == "runs/predict"


def test_the_same_command_at_once_gets_another_folder():
    with resumed_or_new("predict", COMMAND, is_done, "predict") as first:
        with resumed_or_new("predict", COMMAND, is_done, "predict") as second:
            assert (first, second) == (Path("runs/predict"), Path("runs/predict-2"))
            (second / "run.json").touch()
        (first / "run.json").touch()
    with resumed_or_new("predict", COMMAND, is_done, "predict") as newest:
        assert newest == second


@pytest.mark.parametrize("content", [b"", b"[" * 99_999, b"\xff", None])
def test_a_folder_with_a_damaged_record_is_left_alone(content):
    Path("runs/predict").mkdir(parents=True)
    if content is not None:
        Path("runs/predict/.command.json").write_bytes(content)
    assert begun(COMMAND, end=False) == "runs/predict-2"


def test_a_file_or_a_broken_link_in_the_way():
    Path("runs").touch()
    with pytest.raises(OutputError, match="Not a directory: give another folder with -o"), new_folder("train"):
        pass
    Path("runs").unlink()
    Path("runs").symlink_to("nowhere")
    with pytest.raises(OutputError, match="give another folder with -o"), new_folder("train"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied: give another folder with -o"), new_folder("train"):
        pass


def test_results_are_no_input():
    ours, other = Path("runs/predict-2"), Path("found")
    assert not_input(["."], ours) == Path("runs").absolute()
    assert not_input(["runs/frames"], ours) == ours
    assert not_input(["."], other) == other
