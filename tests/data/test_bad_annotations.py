"""More than 90 invalid and malicious datasets in all formats: refused with one line and reported by the check."""

import json
import subprocess
import sys
from pathlib import Path

DOOR = Path(__file__).parents[1] / "support" / "annotation_door.py"


def test_every_case_is_refused_or_read(tmp_path, pytestconfig):
    command = [sys.executable, str(DOOR), str(tmp_path)]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout.splitlines()[-1:], done.stderr[-2000:])
    assert not done.stderr, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({name for name, *_ in rows}) == len(rows) >= 90
    for name, comes, came, what, findings in rows:
        assert came == comes, (name, came, what)
        errors = [message for level, _, message in findings if level == "error"]
        assert bool(errors) == (came == "refused"), (name, findings)
        for text in [what] * (came == "refused") + [text for _, *texts in findings for text in texts]:
            assert text.isprintable(), (name, text)
            assert 0 < len(text) < 1500, (name, len(text), text[:300])
