"""Exports of artifacts without a model over a good one, killed again and again; called in a clean process."""

import json
import random
import tempfile
import time
from functools import partial
from pathlib import Path

from fake_artifacts import OLD, VERDICT, metadata, recorded, write_artifact
from faults import killed_after, killed_at, steps_of

from export.publish import VERDICT_SUFFIX, publish
from runtime.artifact_files.read import read_metadata

NAMES = ["model", "model" + VERDICT_SUFFIX]


def export(output, directory, verdict=VERDICT, slow=False):
    """Publish over whatever stands there; slowly, so that a kill at a random time meets every part of it."""

    def write(path, given):
        write_artifact(path, given, (lambda _moment: time.sleep(0.002)) if slow else (lambda _moment: None))

    publish(Path(output), metadata(directory), write, lambda _path: verdict, overwrite=True)


def state_after(folder, directory):
    """What a kill left: "old" or "new" (anything else is an error), and whether the next run leaves nothing behind."""
    found = read_metadata(folder / NAMES[0]).verdict
    beside = json.loads((folder / NAMES[1]).read_text(encoding="utf-8"))
    known = {name: recorded(verdict, folder / NAMES[0]) for name, verdict in (("old", OLD), ("new", VERDICT))}
    (state,) = [name for name, verdict in known.items() if verdict == found]
    assert beside in known.values()
    left = sorted(item.name for item in folder.iterdir() if item.name not in NAMES)
    export(folder / NAMES[0], directory)
    assert read_metadata(folder / NAMES[0]).verdict == recorded(VERDICT, folder / NAMES[0])
    assert sorted(item.name for item in folder.iterdir()) == NAMES
    return state, left


def kill_at_every_step(directory):
    """Moments of an export over an old artifact; what stood there after a kill at each; kills that left something."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = partial(export, folder / NAMES[0], directory)
        export(folder / NAMES[0], directory, OLD)
        moments, states, leftovers = steps_of(run), [], 0
        for moment in range(len(moments)):
            export(folder / NAMES[0], directory, OLD)
            assert killed_at(run, moment), f"not reached: {moment} of {moments}"
            state, left = state_after(folder, directory)
            states.append(state)
            leftovers += bool(left)
        assert not killed_at(run, len(moments))
    return moments, states, leftovers


def kill_at_random_times(directory, kills, seed=0):
    """What stood there after each kill, of those that came before the end."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = partial(export, folder / NAMES[0], directory, slow=True)
        export(folder / NAMES[0], directory, OLD)
        begin = time.perf_counter()
        run()
        whole = time.perf_counter() - begin
        states = []
        for _ in range(20 * kills):
            export(folder / NAMES[0], directory, OLD)
            if killed_after(run, rng.uniform(0, whole)):
                states.append(state_after(folder, directory)[0])
            if len(states) == kills:
                return states
    return states
