"""Convert a run to a state and back: weights and their mean, optimizer, metrics of the running epoch, counters."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from maskrcnn.checkpoints.named_weights import get_arrays, set_arrays
from maskrcnn.configuration.dataclass_json import to_dict
from maskrcnn.configuration.model import Config
from maskrcnn.data.batches import BatchPlan
from maskrcnn.data.records import Dataset
from maskrcnn.errors import CheckpointMismatchError, TrainingError
from maskrcnn.training.run import Run, RunCounters
from maskrcnn.training.state import State


def capture(run: Run) -> State:
    """Return the state of a run."""
    arrays = {f"network/{name}": array for name, array in get_arrays(run.network).items()}
    if run.average is not None:
        arrays |= {f"mean/{name}": array for name, array in run.average.get().items()}
    arrays |= {f"optimizer/{i} {v.path}": np.asarray(v.numpy()) for i, v in enumerate(run.model.optimizer.variables)}
    arrays |= {f"metrics/{i}": np.asarray(variable.numpy()) for i, variable in enumerate(_metric_variables(run))}
    return State(arrays, {"counters": run.counters.to_dict(), **_facts_of(run)})


def run_facts(config: Config, plan: BatchPlan, validation: Dataset | None) -> dict[str, Any]:
    """Return what must not change when a run is resumed: configuration, images, batch size, and augmentation."""
    datasets = {"training": plan.dataset, "validation": validation}
    images = {name: _fingerprint(dataset) for name, dataset in datasets.items()}
    if plan.repeats is not None:  # they follow from the annotations, which may have changed
        images["training"] += f", visits {hashlib.sha256(plan.repeats.astype('<i8').tobytes()).hexdigest()[:16]}"
    return {
        "config": to_dict(config),
        "images": images,
        "batch": plan.batch_size,  # over all devices
        "augmentation": None if plan.hook is None else plan.hook.name,
    }


def _facts_of(run: Run) -> dict[str, Any]:
    return {"split": run.split, **run_facts(run.config, run.plan, run.validation)}


def restore_weights(run: Run, state: State) -> None:
    """Restore counters, weights and their mean, in a run whose model has no optimizer yet.

    Raises:
        TrainingError: The state belongs to a run with another configuration or other images.
    """
    _check_same(state.facts, _facts_of(run))
    run.counters = RunCounters(**state.facts["counters"])
    set_arrays(run.network, state.part("network"), str(run.folder.state))
    if run.average is not None:
        run.average.set(state.part("mean"))


def restore_optimizer(run: Run, state: State) -> None:
    """Restore the variables of an optimizer that has been built.

    Raises:
        CheckpointMismatchError: The state has the variables of another optimizer.
    """
    stored = state.part("optimizer")
    variables = {f"{i} {v.path}": v for i, v in enumerate(run.model.optimizer.variables)}
    if [(name, array.shape) for name, array in stored.items()] != [(n, tuple(v.shape)) for n, v in variables.items()]:
        raise CheckpointMismatchError(
            f"{run.folder.state} has {len(stored)} optimizer variables, but this version of Keras makes "
            f"{len(variables)}, or gives them other names: resume with the Keras version that started the run"
        )
    for name, variable in variables.items():
        variable.assign(stored[name])


def restore_metrics(run: Run, state: State) -> None:
    """Restore the metrics of an interrupted epoch, so that its means count all its steps."""
    stored = state.part("metrics")
    for i, variable in enumerate(_metric_variables(run)):
        if str(i) in stored:
            variable.assign(stored[str(i)])


def _metric_variables(run: Run) -> Sequence[Any]:
    # The means of a finished epoch are in the history. With several replicas, each has its own sums, and reading them
    # would be work that all workers have to do together.
    if run.counters.step == run.counters.epochs * run.config.training.steps_per_epoch:
        return []
    if run.model.distribute_strategy.num_replicas_in_sync > 1:
        return []
    return [variable for metric in run.model.metrics for variable in metric.variables]


def _fingerprint(dataset: Dataset | None) -> str:
    if dataset is None:
        return "none"
    names = json.dumps([list(dataset.class_names), [record.image_id for record in dataset.records]])
    return f"{len(dataset)} images, {hashlib.sha256(names.encode()).hexdigest()[:16]}"


def _check_same(stored: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    # Other versions leave out settings, or do not know them: these have their defaults.
    known = {key: stored.get(key) for key in present} | {"config": to_dict(Config.from_dict(stored["config"]))}
    for where, old, new in _differences(known, present, ""):
        raise TrainingError(
            f"the run was started with {where} {old!r}, but now it is {new!r}: resume with the original, or start "
            "another run from its last.weights.h5 (init)"
        )


def _differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**new, **old}:
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new and not (isinstance(old, list | tuple) and list(old) == list(new)):
        yield where, old, new
