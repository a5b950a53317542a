"""Some eighty bad artifacts, each opened in a process of its own: refused in one line; no crash, no hang."""

import json
import subprocess
import sys
from pathlib import Path

DOOR = Path(__file__).parents[2] / "support" / "artifact_door.py"


def test_every_case_is_refused(tmp_path, onnx_artifact, savedmodel_artifact, pytestconfig):
    command = [sys.executable, str(DOOR), str(tmp_path / "cases"), str(onnx_artifact), str(savedmodel_artifact)]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len({name for name, *_ in rows}) == len(rows) >= 80
    for name, status, said in rows:
        assert status == 0, (name, status)
        came, what = said
        assert came == ("opened" if name.startswith("good-") else "refused"), (name, came, what)
        if came == "refused":
            assert what.isprintable(), (name, what)
            assert 20 < len(what) < 8000, (name, what)
