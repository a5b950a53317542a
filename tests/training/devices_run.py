"""A short run of the tiny model on the devices that the environment describes; writes its losses to losses.json.

    python devices_run.py FOLDER BATCH_SIZE CPUS

With `TF_CONFIG` it is one of several workers; `VALIDATION` is the number of validation images.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import tensorflow as tf
from training_runs import pictures, tiny

from maskrcnn.configuration.training import StageConfig
from maskrcnn.training.options import TrainOptions
from maskrcnn.training.train import train

folder, batch_size, cpus = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpus)
strategy = None
if cpus > 1 and "TF_CONFIG" not in os.environ:
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpus)])
config = tiny(
    batch_size=batch_size,
    steps_per_epoch=3,
    stages=(StageConfig("heads", 1), StageConfig("all", 1)),
    gradient_clip_norm=1.0,
    ema_momentum=0.9,
    **json.loads(os.environ.get("TRAINING", "{}")),
)
validation = pictures(int(os.environ.get("VALIDATION", "4")), 1)
options = TrainOptions(tensorboard=False, verbose=0)
result = train(config, pictures(), validation, output=folder, strategy=strategy, options=options)
(Path(folder) / "losses.json").write_text(json.dumps(result.history), encoding="utf-8")
