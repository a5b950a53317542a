"""The memory of a long run does not grow."""

from pathlib import Path

import keras
import pytest
from training_runs import tiny

from maskrcnn.configuration.training import AugmentationConfig, StageConfig
from maskrcnn.data.synthetic.shapes import shapes_dataset
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.train import train

STATUS = Path("/proc/self/status")
SETTLED, STEPS, EVERY = 400, 2400, 20  # buffers, graphs and the allocator grow at first


def resident_kilobytes():
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


class Watch(keras.callbacks.Callback):
    """Records the memory of the process at intervals."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def on_train_batch_end(self, batch, logs=None):
        if batch % EVERY == 0:
            self.noted.append(resident_kilobytes())


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not STATUS.exists(), reason="the memory of a process is read from /proc")
def test_two_thousand_steps_take_no_more_memory(tmp_path):
    augmentation = AugmentationConfig(flip_horizontal=0.5, rotate_90=0.5, scale=(0.7, 1.4), brightness=0.3, blur=1.0)
    config = tiny(
        steps_per_epoch=STEPS, validation_steps=0, stages=(StageConfig("all", 1),), augmentation=augmentation,
        ema_momentum=0.99, learning_rate=0.001,
    )  # fmt: skip

    dataset = shapes_dataset(40, 0, size=(64, 64))  # drawn again each time
    watch = Watch()
    options = TrainOptions(verbose=0, evaluate_every=0, state_steps=200, callbacks=(watch,))
    train(config, dataset, output=tmp_path / "run", options=options)
    settled = watch.noted[SETTLED // EVERY :]
    tenth = len(settled) // 10
    before, after = (sorted(part)[tenth // 2] for part in (settled[:tenth], settled[-tenth:]))
    assert after < 1.02 * before, watch.noted
