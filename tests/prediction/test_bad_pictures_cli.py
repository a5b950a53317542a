"""`maskrcnn predict` over a folder of bad and odd pictures: good ones beside bad ones are predicted all the same."""

import json
import subprocess
import sys

from bad_pictures import write_pictures
from PIL import Image


def test_a_folder_of_bad_pictures(onnx_artifact, picture, tmp_path, pytestconfig):
    folder, out = tmp_path / "in", tmp_path / "out"
    cases = write_pictures(folder)
    Image.fromarray(picture).save(folder / "zz good.png")
    command = [sys.executable, "-m", "maskrcnn", "predict", str(onnx_artifact), str(folder), "-o", str(out)]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, check=False, timeout=300)
    printed = (done.stdout + done.stderr).decode("utf-8")  # it must be that
    assert done.returncode == 5, printed[-2000:]
    assert "Traceback" not in printed
    assert "\x1b" not in printed
    failures = json.loads((out / "failures.json").read_text(encoding="utf-8"))
    failed = {row["name"] for row in failures}
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    read = {row["file_name"] for row in found["images"]}
    assert "zz good.png" in read
    assert any(row["score"] > 0.5 for row in found["annotations"])
    assert not read & failed
    lines = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert len(lines) == len(failures) > 60
    assert all(row["message"].isprintable() and row["error"] == "ImageError" for row in failures)
    for name, (_, comes) in cases.items():
        file = f"{name}.png"
        if comes == "read" and not name.startswith("name-"):
            assert file in read, name
        if comes == "refused" and (folder / file).is_file() and name != "process-memory":
            assert file in failed, name
