"""Progress: a line that fits any terminal, an occasional line in a file, nothing with --quiet."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from PIL import Image

from maskrcnn.commands import progress_bar as module
from maskrcnn.commands.progress_bar import State, clock, item_line, progress_bar, progress_line, shortened, stage_line

ROOT = Path(__file__).parents[2]
LOSSES = ("loss 2.9", "rpn 0.32/0.93", "class 0.49", "box 0.35", "mask 0.69")
STATES = [
    State("images", 0, 12),
    State("images", 7, 12, (), 3.21, 1.5),
    State("a long name of a video, with its folder.mp4", 12345, 1234567, (), 24.0, 86400.0),
    State("camera.mp4", 99, None, (), 24.0, None),
    State("epoch 12/40", 340, 1000, LOSSES, 3.0, 3753.0),
    State("epoch 12/40", 340, 1000, LOSSES, None, None),
    State("\x1b[2Jname\nof two lines", 1, 2, (), 1.0, 1.0),
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("width", [*range(1, 41), 60, 79, 80, 81, 120, 300])
def test_a_line_fits(width, state):
    line = progress_line(width, state)
    assert len(line) <= width
    assert line.isprintable()
    if width >= 38:
        count = str(state.done) if state.total is None else f"{state.done}/{state.total}"
        assert count in line
        assert state.left is None or f"ETA {clock(state.left)}" in line


def test_what_a_wide_line_has():
    assert progress_line(80, STATES[1]) == "images  [=================             ]  7/12  ETA 0:02  3.2/s"
    assert progress_line(40, STATES[1]) == "images  7/12  ETA 0:02  3.2/s"
    assert progress_line(80, STATES[4]) == (
        "epoch 12/40  340/1000  ETA 1:02:33  loss 2.9 rpn 0.32/0.93 class 0.49 box 0.35"
    )
    assert progress_line(40, STATES[4]) == "epoch 12/40  340/1000  ETA 1:02:33"
    assert progress_line(100, STATES[4]).endswith("mask 0.69")


@pytest.mark.parametrize("width", [*range(1, 41), 80, 200])
def test_the_line_of_an_image_fits(width):
    facts = ("3 square, 1 circle, 12 triangle, 1 a class with a long name", "12 ms", "480x360")
    for name in ("a.jpg", "folder/of/a/very/long/name/that/fills/lines.jpg"):
        line = item_line(width, name, facts)
        assert len(line) <= width
        assert line.isprintable()
    assert item_line(200, "a.jpg", facts) == f"a.jpg  {'  '.join(facts)}"
    assert item_line(40, "holidays/beach-0001.jpg", ("3 square", "12 ms", "480x360")) == (
        "holida..01.jpg  3 square  12 ms  480x360"
    )


def test_shortened():
    assert shortened("abcdefghijkl", 12) == "abcdefghijkl"
    assert shortened("abcdefghijklm", 12) == "abcde..ijklm"
    assert shortened("abcdefghijklm", 3) == "abc"


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_lines_where_there_is_no_terminal(monkeypatch):
    """The first and the last, and one every ten seconds, later one in a twentieth of the time."""
    time, said = Clock(monkeypatch), []
    with progress_bar(said.append) as shown:
        for done in range(0, 10_001):
            shown("images", done, 10_000)
            time.now += 1
    assert said[0] == "images: 10 of 10000, 1.0 per second, 2:46:30 left"
    assert said[-1] == "images: 10000 of 10000, 1.0 per second"
    assert 60 < len(said) < 140


def test_what_an_earlier_run_did_is_not_counted(monkeypatch):
    time, said = Clock(monkeypatch), []
    with progress_bar(said.append) as shown:
        shown("images", 900, 1000)
        time.now += 20
        shown("images", 950, 1000)
    assert said == ["images: 950 of 1000, 2.5 per second, 0:20 left"]


def test_the_time_left_of_an_epoch_is_that_of_the_run(monkeypatch):
    time, said = Clock(monkeypatch), []
    with progress_bar(said.append) as shown:
        for epoch in (0, 1):
            for done in range(11):
                shown(f"epoch {epoch + 1}/4", done, 10, ("loss 1",), (10 * epoch + done, 40))
                time.now += 2
    assert said[-1] == "epoch 2/4: 10 of 10, loss 1, 0:42 left"


def test_a_line_for_each_of_the_first_hundred_images(monkeypatch):
    said = []
    with progress_bar(said.append) as shown:
        for number in range(1, 1001):
            shown.item(f"{number}.jpg", ("nothing", "3 ms"))
    assert said[0] == "1.jpg: nothing, 3 ms"
    assert [line.split(".")[0] for line in said[98:]] == ["99", "100", *(f"{n}00" for n in range(2, 11))]


def test_nothing_with_quiet(capsys):
    said = []
    with progress_bar(said.append, quiet=True) as shown:
        shown("images", 1, 1)
        shown.item("a.jpg", ("nothing",))
    with stage_line(lambda message: said.append(f"step {message}"), quiet=True) as say:
        say("one")
    assert said == ["step one"]  # whose own function is silent then
    assert capsys.readouterr() == ("", "")


IN_TERMINAL = """
import sys, time
from maskrcnn.commands import console
with console.progress_bar() as shown:
    for done in range(60):
        shown("a rather long name of a video.mp4", done, 59)
        shown.item(f"photo {done} of a rather long name.jpg", ("3 square, 1 circle", "12 ms", "480x360"))
        time.sleep(0.01)
with console.stages() as say:
    say("comparing whole runs of many images whose names are rather long: " + "a.jpg, " * 20)
    time.sleep(0.3)
    console.progress("said meanwhile")
    say("second")
print("the result")
"""


def in_terminal(code, columns, *arguments, cwd=ROOT, **environment):
    """Run Python in a pseudo-terminal of some width; return what it printed there."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    values = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    values |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)} | environment
    process = subprocess.Popen(
        [sys.executable, *code, *arguments], stdin=child, stdout=child, stderr=child, cwd=cwd, env=values
    )
    os.close(child)
    printed = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        printed += part
    os.close(parent)
    assert process.wait() == 0, printed.decode()
    return printed.decode()


def states_of(printed):
    """Return what stood in each line of a terminal, before it was overwritten or left."""
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part) for part in re.split(r"\r\n|\r|\n|\x1b\[2K|\x1b\[1A", printed)]


@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal(columns):
    """No line of progress is wider than the terminal, and nothing of the last line stays."""
    printed = in_terminal(["-c", IN_TERMINAL], columns)
    states = states_of(printed)
    counted = [state for state in states if "/59" in state]
    assert counted
    assert max(map(len, counted)) <= columns
    items = [state for state in states if "12 ms" in state or "1 circle" in state]
    assert len(items) == 60
    assert max(map(len, items)) <= columns
    stages = [state for state in states if state.startswith("... comparing") and state.endswith("  0:00")]
    assert stages
    assert max(map(len, stages)) <= columns
    assert "... said meanwhile" in states
    assert [state for state in states if state][-1] == "the result"
    assert "... second (0:00)" in states


def test_a_terminal_that_cannot_move_its_cursor():
    printed = in_terminal(["-c", IN_TERMINAL], 80, TERM="dumb")
    assert "\x1b[" not in printed
    assert "... photo 0 of a rather long name.jpg: 3 square, 1 circle, 12 ms, 480x360" in printed


def test_the_images_of_a_prediction(tmp_path):
    """A line each, with size, objects by class and time, in a terminal, in a file, and none with --quiet."""
    Image.open(ROOT / "maskrcnn" / "demo.jpg").save(tmp_path / "photo.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "black.png")
    words = ["-m", "maskrcnn", "predict", "demo", "photo.png", "black.png"]
    states = states_of(in_terminal(words, 80, cwd=tmp_path))
    line = re.compile(r"photo.png  4 square, 2 circle, 1 triangle  \d+ ms  480x360")
    assert any(line.fullmatch(state) for state in states)
    assert any(re.fullmatch(r"black.png  nothing  \d+ ms  64x48", state) for state in states)
    done = subprocess.run(
        [sys.executable, *words, "--json"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"^\.\.\. photo.png: 4 square, 2 circle, 1 triangle, \d+ ms, 480x360$", done.stderr, re.MULTILINE)
    folder = tmp_path / json.loads(done.stdout)["folder"]
    assert "milliseconds" not in (folder / "detections" / "photo.png.json").read_text()
    assert not [state for state in states_of(in_terminal([*words, "--quiet"], 80, cwd=tmp_path)) if " ms" in state]
