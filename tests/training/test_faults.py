"""Failures during a run: the error is named, progress is kept, and a resumed run ends as if nothing had happened."""

import os
import shutil
import signal
from dataclasses import replace

import keras
import numpy as np
import pytest
import training_runs
from faults import SmallDisk, file_size_limit
from PIL import Image
from training_runs import Cheap, backbone, small

from maskrcnn.commands.exit_codes import exit_code
from maskrcnn.configuration.training import StageConfig
from maskrcnn.data.batches import BatchPlan
from maskrcnn.errors import DatasetError
from maskrcnn.training import train as module
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.state import load_state
from maskrcnn.training.train import train
from runtime.errors import ImageError, OutputError

EPOCH = 4
CONFIG = small(
    stages=(StageConfig("mrcnn_mask", 3),), steps_per_epoch=EPOCH, validation_steps=2, ema_momentum=0.8, batch_size=2
)


class At(keras.callbacks.Callback):
    """Does something once, at a given step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action, self.seen = step, action, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            self.action()


class Stop(At):
    """Interrupts the run after a step, as SIGTERM does."""

    def __init__(self, step):
        super().__init__(step, lambda: os.kill(os.getpid(), signal.SIGTERM))


def fill(ballast, left):
    """Fill a disk except for some bytes."""
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(ballast.parent).free - left)))


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(module, "TrainingModel", Cheap)


def files_in(folder):
    """The synthetic images as files, enough of them that one can be missing after several steps."""
    folder.mkdir()
    drawn = training_runs.pictures(40)
    records = []
    for record in drawn.records:
        path = folder / f"{record.image_id}.png"
        Image.fromarray(record.load_image()).save(path)
        records.append(replace(record, image=path))
    return replace(drawn, records=tuple(records))


@pytest.fixture
def files(tmp_path):
    return files_in(tmp_path / "pictures")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder and result of a run on such files in which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TrainingModel", Cheap)
        return folder / "run", run(folder / "run", files_in(folder / "pictures"))


def run(folder, dataset, resume=False, validation=None, callbacks=(), **options):
    settings = {"tensorboard": False, "verbose": 0, "build_backbone": backbone, "evaluate_every": 0, **options}
    return train(
        CONFIG,
        dataset,
        validation,
        output=folder,
        resume=resume,
        options=TrainOptions(callbacks=callbacks, **settings),
    )


def assert_ends_as(folder, result, other, expected):
    found, wanted = load_state(folder / "state.h5"), load_state(other / "state.h5")
    assert list(found.arrays) == list(wanted.arrays)
    for name, array in wanted.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)
    assert result.history == expected.history


def picture_of(dataset, step):
    """Return the first file that a step needs (batches have 2 images)."""
    plan = BatchPlan(dataset, 2, CONFIG.training.seed)
    return dataset.records[plan.rows(step)[1]].image


@pytest.mark.parametrize("content", [None, b"", b"\x89PNG\r\n\x1a\n"], ids=["missing", "empty", "broken"])
def test_picture_that_cannot_be_read_any_more(tmp_path, files, content, whole):
    path = picture_of(files, 10)  # several steps after the batches made in advance
    sound = path.read_bytes()

    def spoil():
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    with pytest.raises(ImageError, match=path.name) as refused:
        run(tmp_path / "run", files, state_steps=3, callbacks=(At(2, spoil),))
    assert str(refused.value).isprintable()
    assert exit_code(refused.value) == 5
    assert load_state(tmp_path / "run" / "state.h5").facts["counters"]["step"] == 9
    with pytest.raises(ImageError, match=path.name):
        run(tmp_path / "run", files, resume=True)
    path.write_bytes(sound)
    result = run(tmp_path / "run", files, resume=True)
    assert_ends_as(tmp_path / "run", result, *whole)


def test_picture_of_another_size(tmp_path, files):
    path = picture_of(files, 6)
    other = Image.new("RGB", (60, 64))
    with pytest.raises(DatasetError, match="64 x 60 pixels, the mask of annotation"):
        run(tmp_path / "run", files, callbacks=(At(1, lambda: other.save(path)),))
    assert load_state(tmp_path / "run" / "state.h5").facts["counters"]["step"] == EPOCH


def test_validation_picture_that_cannot_be_read_any_more(tmp_path, files):
    """The epoch is not finished; resuming repeats it from the saved step."""
    validation = replace(files, records=files.records[:4])
    training = replace(files, records=files.records[4:])
    expected = run(tmp_path / "whole", training, validation=validation)
    path = validation.records[1].image
    sound = path.read_bytes()
    with pytest.raises(ImageError, match=path.name):
        run(tmp_path / "run", training, validation=validation, state_steps=3, callbacks=(At(EPOCH + 1, path.unlink),))
    counters = load_state(tmp_path / "run" / "state.h5").facts["counters"]
    assert (counters["step"], len(counters["history"])) == (6, 1)
    path.write_bytes(sound)
    result = run(tmp_path / "run", training, resume=True, validation=validation)
    assert_ends_as(tmp_path / "run", result, tmp_path / "whole", expected)


def test_no_step_no_state(tmp_path, files):
    """There is no state, so the next run starts without `resume`."""
    path = picture_of(files, 0)
    sound = path.read_bytes()
    path.unlink()
    with pytest.raises(ImageError, match=path.name):
        run(tmp_path / "run", files)
    assert not (tmp_path / "run" / "state.h5").exists()
    path.write_bytes(sound)
    assert run(tmp_path / "run", files).ended == "finished"


def test_error_of_our_own_code_keeps_its_traceback(tmp_path, files):
    def broken():
        raise ZeroDivisionError("an error in a loader")

    path = picture_of(files, 1)
    records = tuple(replace(each, image=broken) if each.image == path else each for each in files.records)
    with pytest.raises(ZeroDivisionError, match="in a loader"):
        run(tmp_path / "run", replace(files, records=records))


@pytest.mark.parametrize("size", [0, 3000, 20_000])
def test_files_that_cannot_grow(tmp_path, files, size, whole):
    """As on a full disk: the earlier state and checkpoints are still there."""
    folder = tmp_path / "run"
    run(folder, files, state_steps=3, callbacks=(Stop(5),))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert max(map(len, before.values())) > size
    with file_size_limit(size), pytest.raises(OutputError, match=r"cannot write .*state.h5.*File too large") as refused:
        run(folder, files, resume=True, state_steps=3)
    assert str(refused.value).isprintable()
    assert exit_code(refused.value) == 6
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    result = run(folder, files, resume=True, state_steps=3)
    assert_ends_as(folder, result, *whole)


@pytest.mark.parametrize("left", [0, 30_000, 120_000])
def test_full_disk(files, whole, tmp_path, left):
    disk = SmallDisk.make(2048)
    if disk is None:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        folder, ballast = disk.folder / "run", disk.folder / "ballast"
        run(folder, files, callbacks=(Stop(5),))
        state = (folder / "state.h5").read_bytes()
        with pytest.raises(OutputError, match="No space left on device"):
            run(folder, files, resume=True, callbacks=(At(1, lambda: fill(ballast, left)),))
        assert (folder / "state.h5").read_bytes() == state
        ballast.unlink()
        result = run(folder, files, resume=True)
        assert_ends_as(folder, result, *whole)
    finally:
        disk.remove()
