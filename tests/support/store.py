"""Artifacts that many tests use, made once for a state of the sources, by whichever test process is first.

They are kept in pytest's cache folder, so the next run has them too; `pytest --cache-clear` makes them again.
"""

import hashlib
import os
import shutil
import time
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
_IN_USE_SECONDS = 3600
_SOURCES = ("runtime", "maskrcnn", "export", "benchmarks/seeded_weights.py", "tests/support/models.py")
_SUFFIXES = (".py", ".json", ".h5", ".jpg", ".jinja", ".css", ".js")
_PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy", "pillow")


@cache
def digest():
    """SHA-256 of everything that decides what an artifact holds."""
    found = hashlib.sha256(" ".join(map(metadata.version, _PACKAGES)).encode())
    for source in _SOURCES:
        path = ROOT / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in _SUFFIXES:
                found.update(f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def stored(folder, name, make):
    """Path of an artifact below `folder`; `make(path)` writes it if this state of the sources has none yet.

    It is shared: copy it before you change it.
    """
    here = folder / digest()
    path = here / name
    here.mkdir(parents=True, exist_ok=True)
    os.utime(here)
    with FileLock(folder / f"{name}.lock"):
        if not path.exists():
            _remove_unused(folder, here)
            unfinished = here / f"{name}.unfinished" / name
            shutil.rmtree(unfinished.parent, ignore_errors=True)
            unfinished.parent.mkdir(parents=True)
            make(unfinished)
            for made in sorted(unfinished.parent.iterdir(), key=lambda each: each == unfinished):  # it comes last
                made.rename(here / made.name)
            unfinished.parent.rmdir()
    return path


def _remove_unused(folder, here):
    """Remove earlier states of the sources, unless tests that began before an edit may still use them."""
    for other in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removes it too
            if other.is_dir() and other != here and time.time() - other.stat().st_mtime > _IN_USE_SECONDS:
                shutil.rmtree(other, ignore_errors=True)


@contextmanager
def unverified():
    """Exports in this block are not verified: for artifacts that their tests compare more closely themselves."""
    from export.verify.verdict import Verdict

    with pytest.MonkeyPatch.context() as patch:
        verdict = Verdict("", "", 0.5, 0.5, [], [])
        patch.setattr(Verdict, "passed", True)
        patch.setattr("export.pipeline.verify_written", lambda *_arguments, **_options: verdict)
        yield
