"""Many writers of one path, as threads, processes and containers: no error, and no reader meets a mixture."""

import os
import shutil
import subprocess
import sys

import pytest

WRITES = {"file": 500, "folder": 100}
KINDS = pytest.mark.parametrize("kind", WRITES)
# Arguments: path, kind, threads, writes of each, name of the process. Prints the number of errors and the first three.
WRITER = """
import os, sys, threading
from pathlib import Path
from runtime.atomic import atomic_write

path, kind, threads, writes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
failed = []

def write(thread):
    for number in range(writes):
        content = f"{sys.argv[5]}/{thread}/{number} ".encode() * (1 + 37 * number % 4000)
        try:
            with atomic_write(path, overwrite=True, directory=kind == "folder") as temporary:
                for target in [temporary / "a", temporary / "b"] if kind == "folder" else [temporary]:
                    target.write_bytes(content)
        except BaseException as error:
            failed.append(repr(error))

workers = [threading.Thread(target=write, args=[i]) for i in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(len(failed), *failed[:3], sep="\\n")
"""


def start(root, path, kind, threads, writes, name, before=()):
    command = [*before, sys.executable, "-c", WRITER, str(path), kind, str(threads), str(writes), str(name)]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def is_whole(content):
    """Whether bytes are what one writer wrote: one word, repeated."""
    words = content.split(b" ")
    return words[-1] == b"" and len(set(words[:-1])) == 1


def torn(path, kind):
    """Read once; return whether it was a mixture. A folder is read through one open descriptor, as it was then."""
    if kind == "file":
        return not is_whole(path.read_bytes())
    folder = os.open(path, os.O_RDONLY)
    try:
        found = []
        for name in ("a", "b"):
            descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
            with os.fdopen(descriptor, "rb") as stream:
                found.append(stream.read())
    except FileNotFoundError:  # replaced, and removed, while it was read
        return False
    finally:
        os.close(folder)
    return not (found[0] == found[1] and is_whole(found[0]))


def watch(writers, path, kind):
    """Read until all writers are done; return the number of reads. None may fail, and no read may be torn."""
    reads = 0
    try:
        while any(writer.poll() is None for writer in writers):
            if path.exists():
                assert not torn(path, kind)
                reads += 1
    finally:
        for writer in writers:
            writer.kill()
        printed = [writer.communicate()[0] for writer in writers]
    assert printed == ["0\n"] * len(writers)
    assert not torn(path, kind)
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    return reads


@KINDS
@pytest.mark.parametrize(("processes", "threads"), [(1, 8), (8, 1)], ids=["threads", "processes"])
def test_many_writers_of_one_path(tmp_path, pytestconfig, kind, processes, threads):
    path = tmp_path / "latest"
    writers = [start(pytestconfig.rootpath, path, kind, threads, WRITES[kind], i) for i in range(processes)]
    assert watch(writers, path, kind) > 100


@KINDS
def test_two_containers_in_which_all_writers_have_one_process_id(tmp_path, pytestconfig, kind):
    own = ["unshare", "--pid", "--fork", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("making a process id namespace is not allowed here")
    path = tmp_path / "latest"
    writers = [start(pytestconfig.rootpath, path, kind, 1, 200, i, own) for i in range(2)]
    assert watch(writers, path, kind) > 100
