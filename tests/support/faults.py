"""Faults on demand: a kill at any step of a write, a disk that is full or read-only, bytes that are not as they were.

What is killed runs in a fork. Fork only where no engine has been imported: see `in_clean_process`.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[2]
# Every call by which something lasting happens to names and disks; `exchange` is ours.
STEPS = ("open", "mkdir", "fsync", "rename", "replace", "exchange", "unlink", "rmdir")


def in_clean_process(module, function, *arguments):
    """Call a function of a module under tests/support, in an interpreter of its own; return its JSON-ready result."""
    code = (
        f"import sys, json; sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / 'tests' / 'support')]!r}\n"
        f"import {module}\nprint(json.dumps({module}.{function}(*json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def _watched(at_step):
    """Call `at_step(name, "before" or "after")` around each of `STEPS` in this process."""
    from runtime import atomic

    places = [(atomic if name == "exchange" else os, name) for name in STEPS]
    originals = [getattr(owner, name) for owner, name in places]

    def watch(name, original):
        def call(*args, **options):
            at_step(name, "before")
            result = original(*args, **options)
            at_step(name, "after")
            return result

        return call

    for (owner, name), original in zip(places, originals, strict=True):
        setattr(owner, name, watch(name, original))
    try:
        yield
    finally:
        for (owner, name), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


def steps_of(run):
    """Names of the moments of an undisturbed run, such as "before fsync", in order."""
    found = []
    with _watched(lambda name, when: found.append(f"{when} {name}")):
        run()
    return found


def _in_fork(run):
    """Run in a child; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1 if sys.exc_info()[0] else 0)
    return child


def killed_at(run, moment):
    """Kill a run, in a fork, at the moment of that number; return whether it came so far."""
    count = 0

    def at_step(name, when):
        nonlocal count
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    def watched():
        with _watched(at_step):
            run()

    status = os.waitpid(_in_fork(watched), 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def killed_after(run, seconds):
    """Kill a run, in a fork, after a time; return whether it was still running."""
    child = _in_fork(run)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@contextmanager
def file_size_limit(size):
    """No file of this process can grow beyond `size` bytes: a disk that is full, as far as a writer can tell."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


class SmallDisk:
    """A file system of its own in memory, of `kilobytes`; None from `make` where that is not allowed."""

    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def make(cls, kilobytes):
        folder = Path(tempfile.mkdtemp())
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            return cls(folder)
        folder.rmdir()
        return None

    def make_read_only(self):
        subprocess.run(["mount", "-o", "remount,ro", str(self.folder)], capture_output=True, check=True)

    def remove(self):
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=True)
        self.folder.rmdir()


def content_of(path):
    """Every file at a path, or below it, with its bytes."""
    path = Path(path)
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return {item.relative_to(path.parent).as_posix(): item.read_bytes() for item in sorted(files)}


def flips(content, count, seed=0):
    """`count` copies of some bytes with one byte changed at random: position and copy."""
    rng = np.random.default_rng(seed)
    for position in rng.integers(0, len(content), count).tolist():
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        yield position, bytes(damaged)


def truncations(content):
    """The beginnings of some bytes, cut at every hundredth of them."""
    for share in range(100):
        yield share, content[: len(content) * share // 100]
