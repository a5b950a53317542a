"""Files and folders that appear complete or not at all, also after a kill or on a full disk."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import atomic
from runtime.atomic import atomic_write, check_output
from runtime.errors import OutputError

OLD, NEW = b"old" * 1000, b"new" * 2000
KINDS = pytest.mark.parametrize("directory", [False, True], ids=["file", "folder"])


def put(path, content, directory):
    """Write a file, or a folder with two files, at a path."""
    if directory:
        path.mkdir(parents=True, exist_ok=True)
        (path / "part").mkdir()
        (path / "part" / "data").write_bytes(content)
        (path / "top").write_bytes(content)
    else:
        path.write_bytes(content)


def read(path):
    """The content of what `put` wrote, whole and of one piece."""
    if path.is_dir():
        inside = sorted(item.relative_to(path).as_posix() for item in path.rglob("*"))
        assert inside == ["part", "part/data", "top"]
        assert (path / "top").read_bytes() == (path / "part" / "data").read_bytes()
        return (path / "top").read_bytes()
    return path.read_bytes()


def names_in(folder):
    return sorted(item.name for item in folder.iterdir())


def leftover(path, content, directory, number=0, aside=False):
    """What a killed writer of `path` leaves: its hidden folder with what it wrote, or with the old one moved aside."""
    folder = path.with_name(f".{path.name}.{number:016x}.partial")
    folder.mkdir()
    put(folder / (path.name + ".old" * aside), content, directory)
    return folder


@KINDS
def test_new_output_appears(tmp_path, directory):
    path = tmp_path / "model"
    with atomic_write(path, overwrite=False, directory=directory) as temporary:
        if directory:
            assert list(temporary.iterdir()) == []
            temporary.rmdir()
        put(temporary, NEW, directory)
        assert not path.exists()
    assert read(path) == NEW
    assert names_in(tmp_path) == ["model"]


def test_parent_folders_are_made(tmp_path):
    with atomic_write(tmp_path / "a" / "b" / "model", overwrite=False) as temporary:
        put(temporary, NEW, False)
    assert read(tmp_path / "a" / "b" / "model") == NEW


def test_path_may_be_text_and_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write("sub/model.onnx", overwrite=False) as temporary:
        put(temporary, NEW, False)
    assert read(tmp_path / "sub" / "model.onnx") == NEW


@pytest.mark.parametrize("old_is_folder", [False, True])
@KINDS
def test_existing_output_is_refused(tmp_path, directory, old_is_folder):
    path = tmp_path / "model"
    put(path, OLD, old_is_folder)
    with pytest.raises(OutputError, match=r"already exists.*overwrite=True"):
        atomic_write(path, overwrite=False, directory=directory).__enter__()
    assert read(path) == OLD
    assert names_in(tmp_path) == ["model"]


@KINDS
def test_overwrite_replaces(tmp_path, directory):
    path = tmp_path / "model"
    put(path, OLD, directory)
    with atomic_write(path, overwrite=True, directory=directory) as temporary:
        if directory:
            temporary.rmdir()
        put(temporary, NEW, directory)
        assert read(path) == OLD  # until the block ends
    assert read(path) == NEW
    assert names_in(tmp_path) == ["model"]


def test_a_link_is_replaced_not_followed(tmp_path):
    target, path = tmp_path / "target", tmp_path / "model"
    put(target, OLD, False)
    path.symlink_to(target)
    with atomic_write(path, overwrite=True) as temporary:
        put(temporary, NEW, False)
    assert not path.is_symlink()
    assert (read(path), read(target)) == (NEW, OLD)


@pytest.mark.parametrize("error", [RuntimeError("judged unequal"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("old", [False, True], ids=["nothing before", "something before"])
@KINDS
def test_an_exception_leaves_what_stood_there(tmp_path, directory, old, error):
    path = tmp_path / "model"
    if old:
        put(path, OLD, directory)

    def write():
        with atomic_write(path, overwrite=True, directory=directory) as temporary:
            if directory:
                temporary.rmdir()
            put(temporary, NEW, directory)
            raise error

    with pytest.raises(type(error)) as raised:
        write()
    assert raised.value is error
    assert names_in(tmp_path) == (["model"] if old else [])
    if old:
        assert read(path) == OLD


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    path = tmp_path / "model"
    put(path, OLD, False)
    with pytest.raises(OutputError), atomic_write(path, overwrite=True):
        pass
    assert read(path) == OLD
    assert names_in(tmp_path) == ["model"]


@pytest.mark.parametrize("below", ["model", "deeper/model"])
def test_parent_that_is_a_file(tmp_path, below):
    (tmp_path / "file").write_bytes(OLD)
    path = tmp_path / "file" / below
    for refuse in (lambda: check_output(path, overwrite=True), atomic_write(path, overwrite=True).__enter__):
        with pytest.raises(OutputError, match="is a file, not a folder"):
            refuse()
    assert (tmp_path / "file").read_bytes() == OLD


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@KINDS
def test_parent_that_cannot_be_written(tmp_path, directory):
    parent = tmp_path / "locked"
    parent.mkdir()
    parent.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission"):
            check_output(parent / "model", overwrite=True)
        with pytest.raises(OutputError, match="no permission"):
            atomic_write(parent / "model", overwrite=True, directory=directory).__enter__()
    finally:
        parent.chmod(0o700)


def test_parent_without_permission_is_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match=r"no permission in .*" + tmp_path.name):
        check_output(tmp_path / "new" / "model", overwrite=False)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_path_that_names_nothing(path):
    with pytest.raises(OutputError, match="is not the name of a file"):
        check_output(path, overwrite=True)


@pytest.mark.parametrize("name", ["n" * 300, "n" * 250, "nul\0byte"])
@KINDS
def test_name_that_the_file_system_refuses(tmp_path, name, directory):
    writer = atomic_write(tmp_path / name, overwrite=False, directory=directory)
    with pytest.raises(OutputError) as refused, writer as temporary:
        put(temporary / "inside" if directory else temporary, NEW, False)
    assert "\n" not in str(refused.value)
    assert names_in(tmp_path) == []


def test_check_output_writes_nothing(tmp_path):
    check_output(tmp_path / "a" / "model", overwrite=False)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["model", "model[1].onnx", "mo*el?", "new\nline"])
@KINDS
def test_what_killed_writers_left_is_removed(tmp_path, name, directory):
    path = tmp_path / name
    leftover(path, OLD, directory)
    leftover(path, OLD, directory, 1, aside=True)
    path.with_name(f".{name}.{2:016x}.partial").mkdir()
    put(path, OLD, False)
    with atomic_write(path, overwrite=True) as temporary:
        put(temporary, NEW, False)
    assert read(path) == NEW
    assert names_in(tmp_path) == [name]


@KINDS
def test_what_came_back_is_not_replaced_unasked(tmp_path, directory):
    leftover(tmp_path / "model", OLD, directory, aside=True)
    with pytest.raises(OutputError, match=r"already exists"):
        atomic_write(tmp_path / "model", overwrite=False, directory=directory).__enter__()
    assert read(tmp_path / "model") == OLD
    assert names_in(tmp_path) == ["model"]


@KINDS
def test_what_a_running_writer_has_is_kept(tmp_path, directory):
    """Also in the same process, and also if the writer puts something else in place of what it was given."""
    path = tmp_path / "model"
    with atomic_write(path, overwrite=True, directory=directory) as slow:
        if directory:
            slow.rmdir()
        put(slow, OLD, directory)
        for _ in range(2):
            with atomic_write(path, overwrite=True, directory=directory) as fast:
                if directory:
                    fast.rmdir()
                put(fast, NEW, directory)
            assert read(path) == NEW
        assert read(slow) == OLD
    assert read(path) == OLD
    assert names_in(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_nothing_of_others_is_removed(tmp_path, monkeypatch, error):
    """As on NFS, where folders have no locks: whether its writer still lives is not known."""

    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    left = leftover(tmp_path / "model", OLD, False)
    for content in (OLD, NEW):
        with atomic_write(tmp_path / "model", overwrite=True) as temporary:
            put(temporary, content, False)
        assert read(tmp_path / "model") == content
    assert names_in(tmp_path) == [left.name, "model"]


@KINDS
def test_a_writer_that_is_taken_for_abandoned_begins_again(tmp_path, monkeypatch, directory):
    """Another one may come between making the hidden folder and locking it: it may hold it, or have removed it."""
    flock, hidden = fcntl.flock, []

    def disturbed(descriptor, operation):
        hidden.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        if len(hidden) < 3:
            hidden[-1].rmdir()
        if len(hidden) == 1:
            raise BlockingIOError(errno.EWOULDBLOCK, "held")
        return flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", disturbed)
    with atomic_write(tmp_path / "model", overwrite=False, directory=directory) as temporary:
        if directory:
            temporary.rmdir()
        put(temporary, NEW, directory)
    assert len(set(hidden)) == 3
    assert read(tmp_path / "model") == NEW
    assert names_in(tmp_path) == ["model"]


@pytest.mark.parametrize("name", [".model.2.{}.partial", ".model.x.partial", ".model.partial", ".other.{}.partial"])
def test_files_of_others_are_kept(tmp_path, name):
    put(tmp_path / name.format("0" * 16), OLD, False)
    before = names_in(tmp_path)
    with atomic_write(tmp_path / "model", overwrite=False) as temporary:
        put(temporary, NEW, False)
    assert names_in(tmp_path) == sorted([*before, "model"])


@pytest.mark.parametrize("modern", [True, False], ids=["renameat2", "without it"])
@KINDS
def test_of_two_writers_of_a_new_path_the_second_is_refused(tmp_path, monkeypatch, directory, modern):
    if not modern:
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: None)
    path = tmp_path / "model"

    def both():
        with atomic_write(path, overwrite=False, directory=directory) as slow:
            with atomic_write(path, overwrite=False, directory=directory) as fast:
                if directory:
                    fast.rmdir()
                put(fast, NEW, directory)
            if directory:
                slow.rmdir()
            put(slow, OLD, directory)

    with pytest.raises(OutputError, match=r"already exists"):
        both()
    assert read(path) == NEW
    assert names_in(tmp_path) == ["model"]


# The writer stops at a named moment and says so; there it is killed. Each moment is a call that `atomic_write` makes.
KILLED_WRITER = """
import os, sys, time
from pathlib import Path
path, directory, moment = Path(sys.argv[1]), sys.argv[2] == "folder", sys.argv[3]

def stop(*_args, **_options):
    print("here", flush=True)
    time.sleep(600)

def stop_before(owner, name):
    setattr(owner, name, stop)

def stop_after(owner, name, times=1):
    original, calls = getattr(owner, name), []
    def wrapper(*args, **options):
        result = original(*args, **options)
        calls.append(name)
        if len(calls) == times:
            stop()
        return result
    setattr(owner, name, wrapper)

from runtime import atomic
with atomic.atomic_write(path, overwrite=True, directory=directory) as temporary:
    def put(folder, half):
        for target in ([folder / "top", folder / "part" / "data"] if directory else [folder]):
            target.parent.mkdir(exist_ok=True)
            with target.open("wb") as stream:
                stream.write(b"new" * 1000)
                stream.flush()
                if half:
                    stop()
                stream.write(b"new" * 1000)
    if moment == "started":
        stop()
    put(temporary, half=moment == "half written")
    if moment == "written":
        stop()
    if moment == "flushed":
        stop_before(atomic, "_move_into_place")
    if "two renames" in moment:
        atomic.exchange = lambda one, other: False
        stop_after(Path, "rename", 1 if moment.endswith("first") else 2)
    if moment == "renamed":
        stop_after(atomic, "exchange")
        stop_after(Path, "replace")
"""
MOMENTS = ("started", "half written", "written", "flushed", "renamed")
TWO_RENAMES = ("two renames: first", "two renames: second")


def kill(root, path, directory, moment):
    command = [sys.executable, "-c", KILLED_WRITER, str(path), "folder" if directory else "file", moment]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"here\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("moment", MOMENTS)
@KINDS
def test_killed_while_writing(tmp_path, pytestconfig, directory, moment):
    path = tmp_path / "model"
    put(path, OLD, directory)
    kill(pytestconfig.rootpath, path, directory, moment)
    assert read(path) == (NEW if moment == "renamed" else OLD)
    with atomic_write(path, overwrite=True, directory=directory) as temporary:
        if directory:
            temporary.rmdir()
        put(temporary, b"third", directory)
    assert read(path) == b"third"
    assert names_in(tmp_path) == ["model"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("moment", TWO_RENAMES)
def test_a_folder_killed_where_the_system_cannot_exchange_two(tmp_path, pytestconfig, moment):
    """It is away for the moment between two renames, never half there, and the next run brings it back."""
    path = tmp_path / "model"
    put(path, OLD, True)
    kill(pytestconfig.rootpath, path, True, moment)
    away = moment.endswith("first")
    assert path.exists() is not away
    with pytest.raises(RuntimeError), atomic_write(path, overwrite=True, directory=True):
        raise RuntimeError("the next run fails")
    assert read(path) == (OLD if away else NEW)
    assert names_in(tmp_path) == ["model"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from runtime.atomic import atomic_write
from runtime.errors import OutputError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
path, directory = Path(sys.argv[1]), sys.argv[2] == "folder"
try:
    with atomic_write(path, overwrite=True, directory=directory) as temporary:
        (temporary / "top" if directory else temporary).write_bytes(b"new" * 2000)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit on this system")
@KINDS
def test_full_disk(tmp_path, pytestconfig, directory):
    path = tmp_path / "model"
    put(path, OLD, directory)
    command = [sys.executable, "-c", FULL_DISK, str(path), "folder" if directory else "file"]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert read(path) == OLD
    assert names_in(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_moved_in_puts_the_old_one_back(tmp_path, monkeypatch):
    path = tmp_path / "model"
    put(path, OLD, True)
    rename = type(path).rename

    def write(path):
        with atomic_write(path, overwrite=True, directory=True) as temporary:
            temporary.rmdir()
            put(temporary, NEW, True)

    def refuse(self, target):
        if target == path and self.name == path.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    monkeypatch.setattr(type(path), "rename", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write(path)
    assert read(path) == OLD
    assert names_in(tmp_path) == ["model"]


def test_a_file_never_replaces_a_folder(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "precious").write_text("kept")
    with pytest.raises(OutputError, match="is a folder: give the path of a file"):
        check_output(folder, overwrite=True)
    with pytest.raises(OutputError, match="is a folder"), atomic_write(folder, overwrite=True) as temporary:
        temporary.write_text("new")
    assert (folder / "precious").read_text() == "kept"


def test_a_folder_of_another_kind_is_never_replaced(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    check_output(folder, overwrite=True, directory=True, marker="manifest")  # empty: nothing is lost
    (folder / "precious").write_text("kept")
    with pytest.raises(OutputError, match="never replaced"):
        check_output(folder, overwrite=True, directory=True, marker="manifest")
    (folder / "manifest").write_text("")
    check_output(folder, overwrite=True, directory=True, marker="manifest")


def test_a_folder_that_another_writer_moves_aside_is_no_other_folder(tmp_path, monkeypatch):
    """Where the system cannot exchange two, a folder is away for a moment, also between two looks at it."""
    folder = tmp_path / "results"
    put(folder, OLD, True)
    listing = Path.iterdir

    def move_first(path):
        if path == folder:
            folder.rename(tmp_path / "aside")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", move_first)
    check_output(folder, overwrite=True, directory=True, marker="manifest")
    assert not folder.exists()


def test_a_folder_never_replaces_a_file(tmp_path):
    path = tmp_path / "model"
    path.write_text("kept")
    with pytest.raises(OutputError, match="is a file"):
        check_output(path, overwrite=True, directory=True)


@KINDS
def test_a_system_without_locks_that_flushes_no_folders(tmp_path, monkeypatch, directory):
    """As Windows does: what another process may still be writing stays."""

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) or not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_RDWR:
            raise OSError(9, "Bad file descriptor")

    left = leftover(tmp_path / "out", OLD, False)
    monkeypatch.setattr(atomic, "_LOCKS", False)
    monkeypatch.setattr(atomic, "_WINDOWS", True)
    monkeypatch.setattr(os, "fsync", fsync)
    for content in (OLD, NEW):
        with atomic_write(tmp_path / "out", overwrite=True, directory=directory) as path:
            if directory:
                path.rmdir()
            put(path, content, directory)
        assert read(tmp_path / "out") == content
    assert names_in(tmp_path) == sorted(["out", left.name])
