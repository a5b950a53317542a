"""Kills at random moments of a run of 304 images: afterwards, and after the same command again, each has one row."""

import json
import os
import random
import signal
import time

import pytest
from batches.runs import children, driver, rows_of, write_pictures

pytestmark = pytest.mark.slow
PICTURES, FAILURES = 304, 4


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("many"), PICTURES - FAILURES)


@pytest.fixture(scope="module")
def duration(cluster, many, tmp_path_factory):
    """Seconds of a run that nothing interrupts."""
    begin = time.monotonic()
    finish(cluster, many, tmp_path_factory.mktemp("whole") / "out")
    return time.monotonic() - begin


def finish(cluster, many, output):
    """Run to the end and check the files."""
    with driver(cluster, many, output) as process:
        printed, errors = process.communicate(timeout=600)
    assert printed.strip() == str((PICTURES, PICTURES, FAILURES, 0, 0)), errors
    check(output)


def check(output):
    rows = rows_of(output)  # fails for a torn file
    assert len(rows) == len({row["path"] for row in rows}) == PICTURES
    assert sum(row["error"] is not None for row in rows) == FAILURES
    assert json.loads((output / "_SUCCESS").read_text(encoding="utf-8"))["missing"] == 0
    assert not list((output / ".checkpoint").glob("*.pending.parquet"))


def workers():
    """Return the process ids of the workers that predict."""
    return [number for number, text in children().items() if "ray::" in text and "_Worker" in text]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("victim", ["actor", "driver", "both"])
def test_each_image_has_one_row_after_a_kill(cluster, many, duration, tmp_path, victim, seed):
    moment = random.Random(f"{victim}{seed}").uniform(0.2, 0.95)  # of the run
    output = tmp_path / "out"
    with driver(cluster, many, output) as process:
        limit = time.monotonic() + moment * duration
        while process.poll() is None and (time.monotonic() < limit or (victim != "driver" and not workers())):
            time.sleep(0.05)
        found = workers()
        if victim != "driver":
            for number in found[:1] if victim == "actor" else found:
                os.kill(number, signal.SIGKILL)
        if victim != "actor":
            process.kill()
        printed, errors = process.communicate(timeout=600)
    if victim == "actor":
        assert process.returncode == 0, errors
        assert printed.strip() == str((PICTURES, PICTURES, FAILURES, 0, 0)), errors
    finish(cluster, many, output)
