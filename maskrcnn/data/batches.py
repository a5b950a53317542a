"""Training and validation batches, made with `tf.data`.

The images of a step and all its random choices depend on (seed, step) only, so a resumed run gets exactly the batches
that an uninterrupted run would have got.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from maskrcnn.configuration.model import Config
from maskrcnn.data.augment_hook import AugmentHook
from maskrcnn.data.balance import FACTOR_UNIT, repeat_factors
from maskrcnn.data.batch_errors import BatchErrors
from maskrcnn.data.records import Dataset
from maskrcnn.data.sample import load_sample, training_resize
from maskrcnn.data.sample_arrays import sample_arrays
from maskrcnn.errors import DatasetError

Batch = dict[str, npt.NDArray[np.generic]]

# NumPy and the image decoders release the GIL for most of their work.
_PARALLEL_BATCHES = 4

_DTYPES = {
    "rpn_match": tf.int32,
    "rpn_bbox": tf.float32,
    "class_ids": tf.int32,
    "boxes": tf.float32,
    "masks": tf.bool,
    "active": tf.float32,
    "windows": tf.float32,
    "seeds": tf.int32,
    "proposals": tf.float32,  # only if the heads train without the RPN
    "used": tf.float32,  # only in validation
}

# Second word of the seed, so that the random streams of order and images differ.
_ORDER, _PICTURE = 1, 2


@dataclass(frozen=True)
class Share:
    """The devices that this process feeds: `count` of them from index `first`, of all `devices` of the run.

    Each step yields one batch per device, in order.
    """

    first: int
    count: int
    devices: int


ALONE = Share(0, 1, 1)


class BatchPlan:
    """Assigns images to training steps.

    Every pass over the dataset visits each image once, or as often as `repeats` says, in a new order. Passes follow
    each other without a gap, so a batch can span two of them.

    Args:
        dataset: Refused with a DatasetError if it has no images.
        batch_size: Images per step, over all devices.
        seed: Determines the order.
        shuffle: False keeps the order of the dataset.
        hook: Changes the training images first.
        repeat_threshold: As in `TrainingConfig`; above 0, all annotations are read at once. Needs `shuffle`.

    Attributes:
        class_factors: Repeat factor by class id, for classes with objects; empty without a threshold.
        repeats: Mean number of visits per pass by image, int64 [N] thousandths; a pass visits an image that often,
            rounded down or up at random. None: each once.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        hook: AugmentHook | None = None,
        repeat_threshold: float = 0.0,
    ) -> None:
        if not len(dataset):
            raise DatasetError(f"{dataset.name} has no images: nothing to train on")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.hook = hook
        self.class_factors: dict[int, float] = {}
        self.repeats: npt.NDArray[np.int64] | None = None
        if repeat_threshold:
            self.class_factors, self.repeats = repeat_factors(dataset, repeat_threshold)
        # Of a pass, in thousandths.
        self._length = FACTOR_UNIT * len(dataset) if self.repeats is None else int(self.repeats.sum())
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def _shuffled(self, epoch: int) -> npt.NDArray[np.intp]:
        if not self.shuffle:
            return np.arange(len(self.dataset))
        rng = np.random.default_rng([self.seed, _ORDER, epoch])
        order = rng.permutation(len(self.dataset))
        if self.repeats is None:
            return order
        # The images lie end to end, in random order and each as long as its factor, and every whole number is a visit.
        # So each pass begins where the one before ended, to the thousandth, and its first place is known without it.
        begin = epoch * self._length
        ends = (begin + np.cumsum(self.repeats[order])) // FACTOR_UNIT
        return rng.permutation(np.repeat(order, np.diff(ends, prepend=begin // FACTOR_UNIT)))

    def _row(self, place: int) -> int:
        """Return the image at a place in the sequence of all passes."""
        epoch = ((place + 1) * FACTOR_UNIT - 1) // self._length
        return int(self._order(epoch)[place - epoch * self._length // FACTOR_UNIT])

    def rows(self, step: int) -> list[int]:
        """Return the indices into `dataset.records` for a step."""
        first = step * self.batch_size
        return [self._row(place) for place in range(first, first + self.batch_size)]

    def image_ids(self, step: int) -> list[int | str]:
        """Return the ids of the images of a step."""
        return [self.dataset.records[row].image_id for row in self.rows(step)]


def make_batch(
    config: Config, plan: BatchPlan, step: int, training: bool = True, device: int = 0, devices: int = 1
) -> Batch:
    """Return the arrays of one step for one device: those of `sample_arrays` with a leading axis B, and `seeds`.

    `seeds` is int32 [B, 2]. Whole masks have fewer rows than the other arrays if no image has more objects. Images are
    augmented only if `training`.

    Each device gets an equal part of the step's images, in order. In validation, the last devices may get fewer; one
    without any gets an image of another one. Then `used` float32 [B] is 0, otherwise 1.
    """
    size = -(-plan.batch_size // devices)
    place = device * size
    used = place < plan.batch_size
    size, place = min(size, plan.batch_size - place) if used else 1, place if used else 0
    first = step * plan.batch_size + place
    rngs = [np.random.default_rng([plan.seed, _PICTURE, first + i]) for i in range(size)]
    records = [plan.dataset.records[row] for row in plan.rows(step)[place : place + size]]
    samples = [load_sample(record, config, rng, training, plan.hook) for record, rng in zip(records, rngs, strict=True)]
    height = max(sample.image.shape[0] for sample in samples)
    width = max(sample.image.shape[1] for sample in samples)
    rows = [sample_arrays(sample, config, rng, (height, width)) for sample, rng in zip(samples, rngs, strict=True)]
    batch: Batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if config.training.mini_mask_size is None:
        # As many as the image with the most objects has: whole masks are large.
        batch["masks"] = batch["masks"][:, : max(1, np.count_nonzero(batch["class_ids"], axis=1).max())]
    if not training:
        batch["used"] = np.full(size, used, np.float32)
    places = np.arange(first, first + size)
    batch["seeds"] = np.stack([np.full(len(places), plan.seed), places % (2**31)], axis=1).astype(np.int32)
    return batch


def training_batches(
    config: Config, plan: BatchPlan, first_step: int = 0, share: Share = ALONE, *, errors: BatchErrors | None = None
) -> tf.data.Dataset:
    """Return an endless stream of batches from `first_step` on; `errors` collects the errors of `make_batch`."""
    return _batches(config, plan, tf.data.Dataset.counter(first_step), share, errors, training=True)


def validation_batches(
    config: Config, dataset: Dataset, batch_size: int, share: Share = ALONE, *, errors: BatchErrors | None = None
) -> tf.data.Dataset:
    """Return batches with each image once, in order, without augmentation; an incomplete last batch is dropped.

    `errors` collects the errors of `make_batch`.
    """
    plan = BatchPlan(dataset, min(batch_size, len(dataset)), shuffle=False)
    steps = tf.data.Dataset.range(len(dataset) // plan.batch_size)
    return _batches(config, plan, steps, share, errors, training=False)


def _batches(
    config: Config,
    plan: BatchPlan,
    steps: tf.data.Dataset,
    share: Share,
    errors: BatchErrors | None,
    training: bool,
) -> tf.data.Dataset:
    size, rest = divmod(plan.batch_size, share.devices)
    errors, shapes = errors or BatchErrors(), dict(_shapes(config, None if rest else size, training))
    names, dtypes = tuple(shapes), _DTYPES | {"images": tf.as_dtype(training_resize(config).image_dtype)}

    def load(step: npt.NDArray[np.int64], device: npt.NDArray[np.int64]) -> list[npt.NDArray[np.generic]]:
        with errors.noted():
            batch = make_batch(config, plan, int(step), training, int(device), share.devices)
        return [batch[name] for name in names]

    def to_tensors(step: tf.Tensor, device: tf.Tensor) -> dict[str, tf.Tensor]:
        arrays = tf.numpy_function(load, [step, device], [dtypes[name] for name in names])
        tensors = dict(zip(names, arrays, strict=True))
        for name, shape in shapes.items():
            tensors[name].set_shape(shape)
        return tensors

    def for_each_device(step: tf.Tensor) -> tf.data.Dataset:
        devices = tf.data.Dataset.range(share.first, share.first + share.count)
        return devices.map(lambda device: (step, device))

    parts = steps.flat_map(for_each_device)
    return parts.map(to_tensors, num_parallel_calls=_PARALLEL_BATCHES, deterministic=True).prefetch(_PARALLEL_BATCHES)


def _shapes(config: Config, batch_size: int | None, training: bool) -> Iterator[tuple[str, list[int | None]]]:
    model, settings = config.model, config.training
    policy = training_resize(config)
    side = policy.max_dim if policy.mode == "square" else policy.min_dim if policy.mode == "crop" else None
    masks = list(settings.mini_mask_size) if settings.mini_mask_size else [side, side]
    rows = settings.max_instances
    yield "images", [batch_size, side, side, model.image_channels]
    yield "rpn_match", [batch_size, None]
    yield "rpn_bbox", [batch_size, settings.anchors_per_image, 4]
    yield "class_ids", [batch_size, rows]
    yield "boxes", [batch_size, rows, 4]
    yield "masks", [batch_size, rows if settings.mini_mask_size else None, *masks]
    yield "active", [batch_size, model.num_classes]
    yield "windows", [batch_size, 4]
    yield "seeds", [batch_size, 2]
    if not settings.use_rpn_proposals:
        yield "proposals", [batch_size, config.proposals.post_nms_training, 4]
    if not training:
        yield "used", [batch_size]
