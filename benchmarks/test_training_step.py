"""A training step against TensorFlow Model Garden's, at equal configuration and batch; and what it waits for data.

Contestants take turns step by step in one process, so that whatever else the machine does hits all of them alike.
Wall and processor time of each are in `extra_info`; the table of the run shows our step alone.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from statistics import median

import pytest
import tensorflow as tf

from benchmarks.garden import garden_step
from benchmarks.turns import Clock
from maskrcnn import head_targets, sample_config
from maskrcnn.configuration.model import Config, ModelConfig, ProposalConfig
from maskrcnn.configuration.training import Precision, TrainingConfig
from maskrcnn.data.batches import BatchPlan, make_batch, training_batches
from maskrcnn.data.synthetic.shapes import CLASS_NAMES, shapes_dataset
from maskrcnn.model import MaskRCNN
from maskrcnn.training.fresh import fresh_weights
from maskrcnn.training.model import TrainingModel
from maskrcnn.training.optimizer import build_optimizer
from maskrcnn.training.train import layer_precision
from runtime.pictures.letterbox import ResizePolicy

SIDE, OBJECTS, BATCH, ROUNDS = 512, 7, 2, 9

# The Garden's own numbers where it has no choice: 2 x 2 samples per bin, and a mask head on a quarter of the rows.
CONFIG = Config(
    name="training benchmark",
    model=ModelConfig(class_names=CLASS_NAMES, backbone="resnet50", rpn_channels=256, roi_sampling="roi_align"),
    proposals=ProposalConfig(pre_nms_limit=2000, post_nms_training=1000),
    resize=ResizePolicy("square", SIDE, SIDE, 0),
    training=TrainingConfig(
        batch_size=BATCH, rois_per_image=128, roi_positive_ratio=0.25, max_instances=OBJECTS, train_batch_norm=None
    ),
)

Step = Callable[[], dict[str, float]]


@pytest.fixture(scope="module")
def plan():
    """The first pictures that have seven objects, the most that shapes are drawn with."""
    dataset = shapes_dataset(64, 0, size=(SIDE, SIDE))
    records = [record for record in dataset.records if len(record.load_instances()) == OBJECTS]
    return BatchPlan(replace(dataset, records=tuple(records[:BATCH])), BATCH, shuffle=False)


def trainer(config: Config, steps: int) -> TrainingModel:
    network = MaskRCNN(config)
    fresh_weights(network, 0)
    model = TrainingModel(network)
    model.compile(optimizer=build_optimizer(config.training, config.training.learning_rate, steps))
    model.optimizer.build(model.trainable_variables)
    return model


def our_step(plan: BatchPlan, precision: Precision = "float32") -> tuple[Step, Callable[[], int]]:
    """One step on the pictures of step 0; and the rows of that batch which match an object, now."""
    with layer_precision(precision):
        model = trainer(CONFIG, 1000)
    batch = {name: tf.constant(array) for name, array in make_batch(CONFIG, plan, 0).items()}
    compiled = tf.function(lambda: model.train_step(batch))

    @tf.function
    def positives() -> tf.Tensor:
        size = tf.shape(batch["images"])[1:3]
        targets = model.targets(model.proposals(model.regions(batch["images"]), size), batch, size)
        return tf.math.count_nonzero(targets.class_ids)

    def run() -> dict[str, float]:
        return {name: float(value) for name, value in compiled().items()}

    return run, lambda: int(positives())


@pytest.mark.timeout(3600)
@pytest.mark.benchmark(group="training step, ResNet-50-FPN, 2 x 512 x 512")
def test_step_against_garden(benchmark, plan, monkeypatch):
    if find_spec("official") is None:
        pytest.skip("TensorFlow Model Garden (tf-models-official) is not installed")
    step, positives = our_step(plan)
    clocks = {"ours": Clock(step)}
    step()
    with monkeypatch.context() as patch:
        # Every proposal counts as matched, so that all rows that may be are filled: what the Garden always has.
        patch.setattr(head_targets, "POSITIVE_IOU", 0.0)
        full, full_positives = our_step(plan)
        full()
        benchmark.extra_info["mask_rows_full"] = full_positives()
    clocks["ours_full_mask_rows"] = Clock(full)
    bfloat16, _ = our_step(plan, "mixed_bfloat16")
    clocks["ours_mixed_bfloat16"] = Clock(bfloat16)
    for name, batched in (("garden_loop_nms", False), ("garden_batched_nms", True)):
        clocks[name] = Clock(garden_step(CONFIG, plan, batched))
    clocks["garden_mixed_bfloat16"] = Clock(garden_step(CONFIG, plan, False, "bfloat16"))
    peers = [clock for name, clock in clocks.items() if name != "ours"]
    for clock in (*clocks.values(), *peers):
        clock.call()

    def others() -> None:
        for clock in peers:
            clock()

    benchmark.pedantic(clocks["ours"], setup=others, rounds=ROUNDS)
    walls = {name: median(clock.wall) for name, clock in clocks.items()}
    fastest = min(walls["garden_loop_nms"], walls["garden_batched_nms"])
    benchmark.extra_info["wall_s"] = walls
    benchmark.extra_info["cpu_s"] = {name: median(clock.cpu) for name, clock in clocks.items()}
    benchmark.extra_info["samples"] = {name: clock.wall for name, clock in clocks.items()}
    benchmark.extra_info["ratio"] = walls["ours"] / fastest
    benchmark.extra_info["ratio_full_mask_rows"] = walls["ours_full_mask_rows"] / fastest
    benchmark.extra_info["ratio_mixed_bfloat16"] = walls["ours_mixed_bfloat16"] / walls["garden_mixed_bfloat16"]
    benchmark.extra_info["mask_rows"] = positives()


@pytest.mark.benchmark(group="training loop, demo configuration, shapes")
def test_input_pipeline(benchmark):
    """Share of a loop that is spent waiting for the next batch, drawn, augmented and matched while a step runs."""
    config = sample_config("demo")
    model = trainer(config, 1000)
    batches = iter(training_batches(config, BatchPlan(shapes_dataset(1000, 0), config.training.batch_size)))
    step = tf.function(model.train_step, reduce_retracing=True)
    waits: list[float] = []

    def run() -> None:
        start = time.perf_counter()
        batch = next(batches)
        waits.append(time.perf_counter() - start)
        {name: float(value) for name, value in step(batch).items()}

    for _ in range(5):
        run()
    waits.clear()
    start = time.perf_counter()
    benchmark.pedantic(run, rounds=60)
    benchmark.extra_info["waiting_share"] = sum(waits) / (time.perf_counter() - start)
    benchmark.extra_info["batch_size"] = config.training.batch_size
