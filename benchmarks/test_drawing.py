"""Drawing detections against supervision with OpenCV: masks, outlines, boxes and labels, in turns in one process.

supervision gets full-size masks, or its compact ones, that were made before; ours are made while drawing. Peak memory
is measured in a new process for each case, from the detections on: it includes the masks that supervision needs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.turns import ROUNDS, Replay, take_turns
from runtime import Detections

DROPLETS = Path(os.environ.get("MASKRCNN_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "droplets"
SCENES = {
    "101 droplets, 640 x 512": (512, 640),
    "15 droplets, 640 x 512": (512, 640),
    "100 detections in 81 classes, 1333 x 800": (800, 1333),
    "100 detections in 81 classes, 4000 x 3000": (3000, 4000),
    "10 detections, 300 x 200": (200, 300),
}
REPLAY = Replay()
PENS = ("ours", "supervision", "supervision, compact masks")


def make_scene(name):
    """Pixels uint8 [H, W, 3], and what is detected in them."""
    count, (height, width) = int(name.split()[0]), SCENES[name]
    rng = np.random.default_rng(count)
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    if "droplets" in name:
        if not DROPLETS.is_dir():
            pytest.skip(f"{DROPLETS} is not there")
        file = json.loads((DROPLETS / "train.json").read_text(encoding="utf-8"))
        outlined = {row["id"]: [] for row in file["images"]}
        for row in file["annotations"]:
            outlined[row["image_id"]].append(row["bbox"])
        image = next(row for row in file["images"] if len(outlined[row["id"]]) == count)
        pixels = np.array(Image.open(DROPLETS / "train" / image["file_name"]).convert("RGB"))
        corners, sides = np.split(np.array(outlined[image["id"]]), 2, axis=1)
        classes = ("BG", "droplet")
    else:
        pixels = np.array(Image.fromarray(rng.integers(0, 256, (15, 20, 3), np.uint8)).resize((width, height)))
        depth = rng.beta(1.1, 1.6, (count, 1))  # near objects are large and low
        sides = (0.03 + 0.3 * depth) * height * rng.uniform(0.3, 1.2, (count, 2))
        feet = np.hstack([rng.uniform(0, width, (count, 1)), (0.4 + 0.6 * depth) * height])
        corners = np.clip(feet - sides * [0.5, 1], 0, [width - 2, height - 2])
        classes = ("BG", *(f"class {number}" for number in range(1, 82)))
    boxes = np.hstack([corners, corners + sides]).clip(0, [width, height] * 2).astype(np.float32)
    return pixels, Detections(
        boxes,
        rng.uniform(0.5, 1, count).astype(np.float32),
        (1 + np.arange(count) % (len(classes) - 1)).astype(np.int32),
        np.repeat((np.hypot(y, x) < 0.95)[None], count, axis=0).astype(np.float32),
        (height, width),
        classes,
    )


def make_pen(pen, pixels, found):
    """A function that returns the drawn image."""
    if pen == "ours":
        return lambda: found.draw(pixels)
    import supervision as sv  # noqa: PLC0415 - only in processes that use it

    theirs = found.to_supervision()
    if "compact" in pen:
        from supervision.detection.compact_mask import CompactMask  # noqa: PLC0415

        theirs.mask = CompactMask.from_dense(theirs.mask, theirs.xyxy, pixels.shape[:2])
    size = pixels.shape[1::-1]
    look = {"color_lookup": sv.ColorLookup.INDEX}
    line = sv.calculate_optimal_line_thickness(size)
    pens = (
        sv.MaskAnnotator(**look),
        sv.PolygonAnnotator(thickness=line, **look),
        sv.BoxAnnotator(thickness=line, **look),
    )
    labels = sv.LabelAnnotator(text_scale=sv.calculate_optimal_text_scale(size), smart_position=True, **look)
    texts = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores, strict=True)]

    def draw():
        drawn = pixels.copy()
        for each in pens:
            drawn = each.annotate(drawn, theirs)
        return labels.annotate(drawn, theirs, labels=texts)

    return draw


def resident(line):
    """Megabytes in a line of the process's status: what it holds now (VmRSS), or held at most (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(row for row in status.splitlines() if row.startswith(line)).split()[1]) / 1024


def report_peak(pen, name):
    """Print how much memory drawing takes at most, in megabytes above what is there before, and in the process."""
    pixels, found = make_scene(name)
    small = found[:1]
    make_pen(pen, pixels[:64, :64], Detections(*_fields(small), (64, 64), small.class_names))()  # loads code and fonts
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    before = resident("VmRSS")
    make_pen(pen, pixels, found)()
    print(json.dumps([resident("VmHWM") - before, resident("VmHWM")]))


def _fields(found):
    return np.array([[8, 8, 40, 40]], np.float32), found.scores, found.class_ids, found.mask_probabilities


def peak(pen, name):
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.test_drawing", pen, name]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    return dict(zip(("peak_mb", "process_mb"), (round(mb, 1) for mb in json.loads(done.stdout)), strict=True))


@pytest.fixture(scope="module")
def turns():
    """Clocks by scene and pen; the scenes take turns of their own."""
    pytest.importorskip("supervision")
    pytest.importorskip("cv2").setNumThreads(1)  # as ours
    made = {}

    def timed(name):
        if name not in made:
            pixels, found = make_scene(name)
            made[name] = take_turns({pen: make_pen(pen, pixels, found) for pen in PENS}, ROUNDS)
            for clock in made[name].values():
                clock.release()
        return made[name]

    return timed


@pytest.mark.benchmark(timer=REPLAY.timer)
@pytest.mark.parametrize("pen", PENS)
@pytest.mark.parametrize("name", SCENES)
def test_draw(benchmark, turns, name, pen):
    benchmark.group = f"drawing {name}"
    benchmark.extra_info |= {"case": pen} | peak(pen, name)
    REPLAY.report(benchmark, turns(name)[pen])


if __name__ == "__main__":
    report_peak(*sys.argv[1:])
