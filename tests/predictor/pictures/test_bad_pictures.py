"""Over 160 bad and odd pictures at every door: refused in one line, or read; no crash, no hang, no memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bad_pictures import HEIGHT, WIDTH

DOORS = Path(__file__).parents[2] / "support" / "picture_doors.py"
TURNED = {f"orientation-{value}" for value in (5, 6, 7, 8)}
# What a header tells: a damaged rest is for who decodes.
IN_THE_HEADER = ("huge-", "zero-", "empty", "html", "pdf", "zip", "folder", "pipe", "device", "missing", "dangling")


def through(door, folder, root):
    """(name, what must come of it, what came, size or message) of each case, and KiB of memory taken."""
    command = [sys.executable, str(DOORS), door, str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout.splitlines()[-1:], done.stderr[-2000:])
    *lines, memory = done.stdout.splitlines()
    return [json.loads(line) for line in lines], int(memory)


@pytest.mark.parametrize(("door", "least"), [("read", 160), ("prepare", 160), ("size", 130)])
def test_every_case_is_refused_or_read(door, least, tmp_path, pytestconfig):
    rows, memory = through(door, tmp_path / "pictures", pytestconfig.rootpath)
    assert len({name for name, *_ in rows}) == len(rows) >= least
    for name, comes, came, what in rows:
        if door == "size":
            comes = comes if name.startswith(IN_THE_HEADER) else "either"  # noqa: PLW2901
        assert came in ("read", "refused"), (name, came, what)
        assert comes in ("either", came), (name, came, what)
        if came == "refused":
            assert what.isprintable(), (name, what)
            assert 10 < len(what) < 8000, (name, what)
        elif name in TURNED:
            assert what == [WIDTH, HEIGHT], name
        elif name.startswith(("orientation", "gray", "rgb", "palette", "cmyk", "gif-a", "png-a", "webp-a", "name-")):
            assert what == [HEIGHT, WIDTH], name
    assert memory < 100_000  # KiB: none of the huge ones was decoded
