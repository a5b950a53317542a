"""The folder of a run: whose it may become, and when it is refused."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn.prediction.output_folder import OutputFolder, open_output
from maskrcnn.prediction.settings import RunSettings, model_digest
from maskrcnn.prediction.sources import Source
from runtime.errors import ArtifactError, MissingPackageError, OutputError

ROOT = Path(__file__).parents[2]
SETTINGS = RunSettings("0123", ("BG", "cat"), 0.5, 0.3)


def opened(folder, settings=SETTINGS, force=False):
    with open_output(folder, settings, force=force) as output:
        return output


def test_a_new_folder_notes_its_settings(tmp_path):
    opened(tmp_path / "a" / "b")
    stored = json.loads((tmp_path / "a" / "b" / "run.json").read_text(encoding="utf-8"))
    assert stored == SETTINGS.to_dict()
    assert SETTINGS.differences(stored) == []
    opened(tmp_path / "a" / "b")


def test_what_killed_writers_left_is_removed(tmp_path):
    """Also beside a document that is whole: the writer was killed between its last two steps."""
    opened(tmp_path)
    hidden, mine = "part0/.a.png.json.0123456789abcdef.partial", "part0/.a.png.json.x.partial"
    for name in (hidden, mine):
        (tmp_path / "detections" / name).mkdir(parents=True)
        (tmp_path / "detections" / name / "a.png.json").touch()
    (tmp_path / "detections" / "part0" / "a.png.json").write_text("whole")
    held = tmp_path / "detections" / ".b.png.json.0123456789abcdef.partial"
    held.mkdir()
    lock = os.open(held, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        opened(tmp_path)
    finally:
        os.close(lock)
    assert held.is_dir()
    left = {path.relative_to(tmp_path / "detections").as_posix() for path in tmp_path.rglob("detections/part0/*")}
    assert left == {mine, "part0/a.png.json"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_threshold": 0.7}, r"score_threshold was 0\.5 and is now 0\.7"),
        ({"nms_threshold": 0.4}, "nms_threshold"),
        ({"model": "f" * 64}, 'model was "0123" and is now "f+'),
        ({"classes": ("cat",)}, r'classes was null and is now \["cat"\]'),
        ({"every": 2}, "every was 1 and is now 2"),
        ({"class_names": ("BG", "dog")}, "class_names"),
        ({"version": 2}, "version"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, changes, message):
    other = replace(SETTINGS, **changes)
    assert other.digest != SETTINGS.digest
    opened(tmp_path / "out")
    with pytest.raises(OutputError, match=message) as caught:
        opened(tmp_path / "out", other)
    assert "--force" in str(caught.value)
    assert "\n" not in str(caught.value)
    opened(tmp_path / "out", other, force=True)
    opened(tmp_path / "out", other)


@pytest.mark.parametrize("content", [None, "{}", "no JSON", "[]", "\udcff"])
def test_folders_of_others_are_left_alone(tmp_path, content):
    (tmp_path / "mine.txt").write_text("x")
    if content is not None:
        (tmp_path / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    before = sorted(path.name for path in tmp_path.iterdir())
    for force in (False, True):
        with pytest.raises(OutputError, match="other files"):
            opened(tmp_path, force=force)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_run_that_was_killed_at_once_is_no_other_thing(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".run.json.99999999.partial").write_text("{")
    opened(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path):
    with open_output(tmp_path / "out", SETTINGS, force=False), pytest.raises(OutputError, match="in use"):
        opened(tmp_path / "out")
    opened(tmp_path / "out")


def held(folder):
    """A process that holds the lock of a folder until its standard input ends."""
    code = (
        "import sys\n"
        "from pathlib import Path\nfrom maskrcnn.prediction.output_folder import open_output\n"
        "from maskrcnn.prediction.settings import RunSettings\nfrom runtime.errors import OutputError\n"
        "settings = RunSettings('0123', ('BG', 'cat'), 0.5, 0.3)\n"
        f"with open_output(Path({str(folder)!r}), settings, force=False):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_two_processes_do_not_share_a_folder_until_one_dies(tmp_path):
    with held(tmp_path / "out") as process:
        with pytest.raises(OutputError, match=r"out is in use by another run: wait for it, or choose another folder"):
            opened(tmp_path / "out")
        process.kill()
    opened(tmp_path / "out")


def test_without_the_locks_of_posix(tmp_path):
    """As on Windows: everything is imported, and two runs at once are refused."""
    names = ", ".join(
        f"maskrcnn.prediction.{path.stem}" for path in (ROOT / "maskrcnn" / "prediction").glob("[!_]*.py")
    )
    code = (
        f"import sys\nsys.modules['fcntl'] = None\nimport {names}\n"
        "from pathlib import Path\nfrom runtime.errors import OutputError\n"
        "open_output = maskrcnn.prediction.output_folder.open_output\n"
        "settings = maskrcnn.prediction.settings.RunSettings('0123', ('BG', 'cat'), 0.5, 0.3)\n"
        f"folder = Path({str(tmp_path / 'out')!r})\n"
        "with open_output(folder, settings, force=False):\n"
        "    try:\n"
        "        with open_output(folder, settings, force=False): print('two')\n"
        "    except OutputError as error: print(error)\n"
        "with open_output(folder, settings, force=False): print('again')\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    refused, again = done.stdout.splitlines()
    assert "is in use by another run" in refused
    assert again == "again"


def test_the_package_for_locks_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "filelock", None)
    with pytest.raises(MissingPackageError, match=r"'filelock'.*pip install 'maskrcnn-export\[predict\]'"):
        opened(tmp_path / "out")


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def no_locks(request, monkeypatch):
    """A file system without the locks of the kernel."""

    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.usefixtures("no_locks")
def test_a_file_system_without_locks(tmp_path):
    """Two runs are told apart all the same, and the second one is told what to do about a dead owner."""
    with open_output(tmp_path / "out", SETTINGS, force=False):
        with pytest.raises(OutputError, match=r"in use by another run.*has no locks.*delete .*\.lock-owner$"):
            opened(tmp_path / "out")
        assert (tmp_path / "out" / "run.json").exists()
    opened(tmp_path / "out")


OWNER = "{pid}\n{host}\n"


@pytest.mark.parametrize("no_locks", [errno.ENOLCK], indirect=True)
def test_a_file_system_without_locks_and_a_dead_owner(tmp_path, no_locks):
    """An owner on this machine is known to be gone; one in another container or on another machine is not."""
    from filelock._identity import host_name

    opened(tmp_path / "out")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = tmp_path / "out" / ".lock-owner"
    owner.write_text(OWNER.format(pid=gone.pid, host=host_name()))
    opened(tmp_path / "out")
    for host in ("another", "another?pidns-f000abcd"):
        owner.write_text(OWNER.format(pid=gone.pid, host=host))
        with pytest.raises(OutputError, match=r"if that run no longer exists, delete"):
            opened(tmp_path / "out")
    owner.unlink()
    opened(tmp_path / "out")


def test_a_lock_that_cannot_be_taken(tmp_path):
    (tmp_path / "out" / ".lock").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot lock"):
        opened(tmp_path / "out")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        opened(tmp_path / "out")


def test_forgetting_takes_the_document_first(tmp_path, monkeypatch):
    folder, source = OutputFolder(tmp_path), Source(tmp_path / "a.png", "sub/a.png")
    paths = [folder.document(source), folder.view("overlay", source), folder.view("splash", source)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    order = []
    monkeypatch.setattr(type(tmp_path), "unlink", lambda path, missing_ok=False: order.append(path))
    folder.forget(source)
    assert order == paths


def test_digest_of_a_model(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    (tmp_path / "m" / "b").write_text("2")
    first = model_digest(tmp_path / "m")
    (tmp_path / "m" / "b").rename(tmp_path / "m" / "c")
    assert model_digest(tmp_path / "m") != first
    (tmp_path / "m" / "c").rename(tmp_path / "m" / "b")
    assert model_digest(tmp_path / "m") == first
    assert model_digest(tmp_path / "m" / "a") != model_digest(tmp_path / "m" / "b")
    assert model_digest(tmp_path / "m" / "a", "{}") != model_digest(tmp_path / "m" / "a")
    model_digest(tmp_path / "nowhere")


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_model_that_is_replaced_while_its_digest_is_computed(tmp_path, monkeypatch, folder):
    path = tmp_path / "m"
    if folder:
        path.mkdir()
    file = path / "a" if folder else path
    file.write_text("1")
    real = type(path).is_file

    def remove_next(path):
        found = real(path)
        file.unlink()
        return found

    monkeypatch.setattr(type(path), "is_file", remove_next)
    with pytest.raises(ArtifactError, match=r"cannot read the model at .*m: No such file or directory: run the"):
        model_digest(path)
