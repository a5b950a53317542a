"""The stages of a run as calls of `fit`, wherever the run stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import keras

from maskrcnn.configuration.model import Config
from maskrcnn.data.batches import training_batches
from maskrcnn.training.layers import set_trainable
from maskrcnn.training.optimizer import build_optimizer
from maskrcnn.training.run import Run
from maskrcnn.training.saving import StateSaver
from maskrcnn.training.snapshot import restore_metrics, restore_optimizer
from maskrcnn.training.state import State
from maskrcnn.training.strategies import spread


@dataclass(frozen=True)
class Part:
    """Work for one call of `fit`.

    Attributes:
        stage: Index of the stage.
        first_epoch: Counted over the run.
        last_epoch: The one after the last.
        steps: Of each epoch; fewer than an epoch's where it had begun, 0 where only its end is missing.
    """

    stage: int
    first_epoch: int
    last_epoch: int
    steps: int


def next_part(config: Config, epochs: int, step: int) -> Part | None:
    """What comes after `epochs` finished epochs and `step` steps; None at the end."""
    training, end = config.training, 0
    for index, stage in enumerate(training.stages):
        end += stage.epochs
        if epochs < end:
            done = step - epochs * training.steps_per_epoch
            rest = training.steps_per_epoch - done
            return Part(index, epochs, epochs + 1 if done else end, rest)
    return None


def run_stages(
    run: Run, callbacks: Sequence[keras.callbacks.Callback], state: State | None, verbose: int | str
) -> None:
    """Train from where the run stands to its end.

    Args:
        run: Its network has the weights to go on from.
        callbacks: Those of the run, of which one is a `StateSaver`.
        state: What the run goes on from, for the optimizer.
        verbose: Of `fit`.
    """
    compiled: int | None = None
    while not run.progress.stopped:
        part = next_part(run.config, run.progress.epochs, run.progress.step)
        if part is None:
            return
        if compiled != part.stage:
            _start_stage(run, part.stage, state)
            compiled = part.stage
        if part.steps == 0:
            _close_epoch(run, callbacks, state)
            continue
        if state is not None and part.steps < run.config.training.steps_per_epoch:
            _resume_sums(run, callbacks, state)
        state = None
        batches = partial(training_batches, run.config, run.plan, run.progress.step, errors=run.batch_errors)
        with run.batch_errors.raised():
            run.model.fit(
                spread(run.model.distribute_strategy, batches),
                initial_epoch=part.first_epoch,
                epochs=part.last_epoch,
                steps_per_epoch=part.steps,
                callbacks=list(callbacks),
                shuffle=False,  # the batches are in their order already; Keras warns of its default
                verbose=verbose,
            )


def _start_stage(run: Run, index: int, state: State | None) -> None:
    """Choose the layers, and make the optimizer; a stored one is taken up if it is this stage's."""
    training = run.config.training
    stage = training.stages[index]
    goes_on = state is not None and state.facts["progress"]["stage"] == index
    run.progress.stage = index
    strategy = run.model.distribute_strategy
    with strategy.scope():
        set_trainable(run.network, stage.layers)
        rate = training.learning_rate if stage.learning_rate is None else stage.learning_rate
        steps = stage.epochs * training.steps_per_epoch
        optimizer = build_optimizer(training, rate, steps, strategy.num_replicas_in_sync)
        run.model.compile(optimizer=optimizer)
        optimizer.build(run.model.trainable_variables)
        if state is not None and goes_on:
            restore_optimizer(run, state)


def _resume_sums(run: Run, callbacks: Sequence[keras.callbacks.Callback], state: State) -> None:
    for callback in callbacks:
        if isinstance(callback, StateSaver):
            callback.resume_with(lambda: restore_metrics(run, state))


def _close_epoch(run: Run, callbacks: Sequence[keras.callbacks.Callback], state: State | None) -> None:
    """Do what `fit` does after the last step of an epoch: the run was stopped between the two."""
    if state is not None:
        restore_metrics(run, state)
    logs = {metric.name: float(metric.result()) for metric in run.model.metrics}
    for callback in callbacks:
        callback.set_model(run.model)
    for callback in callbacks:
        callback.on_epoch_end(run.progress.epochs, logs)
