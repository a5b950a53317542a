"""The journal of a video: whatever a kill leaves of it is read to the last whole line."""

import json

import pytest

from maskrcnn.prediction.journal import Journal, read_journal
from runtime.errors import OutputError

HEAD = {"video": "a.mp4", "run": "x"}


def frame(number):
    return {"frame": number, "time": number / 25, "image_size": [2, 3], "detections": [{"name": "Größe"}]}


def filled(path, count):
    journal = Journal(path, HEAD)
    for number in range(count):
        journal.append(frame(number))
    return journal


def test_frames_come_back_in_order(tmp_path):
    journal = filled(tmp_path / "new" / "a.jsonl", 3)
    assert (journal.written, journal.frames) == (3, None)
    journal.finish(5)
    journal.close()
    again = Journal(tmp_path / "new" / "a.jsonl", HEAD)
    assert (again.written, again.frames) == (3, 5)
    again.close()
    assert list(read_journal(tmp_path / "new" / "a.jsonl")) == [frame(0), frame(1), frame(2)]


def test_every_torn_end_loses_at_most_the_line_in_hand(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = filled(path, 2)
    journal.close()
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        journal = Journal(path, HEAD)
        assert journal.written == max(0, whole[:length].count(b"\n") - 1)
        while journal.written < 2:
            journal.append(frame(journal.written))
        journal.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\n", b"\0\0\0\n", b"[1]\n", b"{\n", b"\n"])
def test_rubbish_ends_what_is_kept(tmp_path, rubbish):
    path = tmp_path / "a.jsonl"
    filled(path, 2).close()
    whole = path.read_bytes()
    path.write_bytes(whole + rubbish + json.dumps(frame(2)).encode() + b"\n")
    Journal(path, HEAD).close()
    assert path.read_bytes() == whole


def test_what_stands_after_the_end_is_dropped(tmp_path):
    path = tmp_path / "a.jsonl"
    journal = filled(path, 2)
    journal.finish(2)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + json.dumps(frame(2)).encode() + b"\n")
    journal = Journal(path, HEAD)
    journal.close()
    assert journal.frames == 2
    assert path.read_bytes() == whole


def test_another_head_begins_anew(tmp_path):
    path = tmp_path / "a.jsonl"
    filled(path, 2).close()
    journal = Journal(path, HEAD | {"run": "y"})
    journal.close()
    assert journal.written == 0
    assert path.read_text(encoding="utf-8") == json.dumps(HEAD | {"run": "y"}) + "\n"


def test_lines_are_with_the_system_at_once(tmp_path):
    journal = filled(tmp_path / "a.jsonl", 2)
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 3
    journal.close()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot"):
        Journal(tmp_path / "file" / "a.jsonl", HEAD)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot"):
        Journal(tmp_path / "folder.jsonl", HEAD)
