"""Run the training phases as calls of `fit`, from wherever the run stands."""

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
class FitCall:
    """The arguments of one call of `fit`.

    Attributes:
        phase: Index of the training phase.
        first_epoch: Counted over the run.
        end_epoch: One after the last.
        steps: Steps of each epoch; fewer if the epoch had already begun, 0 if only its end is missing.
    """

    phase: int
    first_epoch: int
    end_epoch: int
    steps: int


def next_call(config: Config, epochs: int, step: int) -> FitCall | None:
    """Return the call that follows `epochs` finished epochs and `step` steps; None at the end of the run."""
    training, end = config.training, 0
    for index, phase in enumerate(training.stages):
        end += phase.epochs
        if epochs < end:
            done = step - epochs * training.steps_per_epoch
            rest = training.steps_per_epoch - done
            return FitCall(index, epochs, epochs + 1 if done else end, rest)
    return None


def run_phases(
    run: Run, callbacks: Sequence[keras.callbacks.Callback], state: State | None, verbose: int | str
) -> None:
    """Train from where the run stands to its end.

    Args:
        run: Its network has the weights to continue with.
        callbacks: One of them is a `StateSaver`.
        state: The state that the run resumes from, for its optimizer and metrics.
        verbose: As in `fit`.
    """
    compiled: int | None = None
    while not run.counters.stopped:
        call = next_call(run.config, run.counters.epochs, run.counters.step)
        if call is None:
            return
        if compiled != call.phase:
            _start_phase(run, call.phase, state)
            compiled = call.phase
        if call.steps == 0:
            _finish_epoch(run, callbacks, state)
            continue
        if state is not None and call.steps < run.config.training.steps_per_epoch:
            _resume_metrics(run, callbacks, state)
        state = None
        batches = partial(training_batches, run.config, run.plan, run.counters.step, errors=run.batch_errors)
        with run.batch_errors.raised():
            run.model.fit(
                spread(run.model.distribute_strategy, batches),
                initial_epoch=call.first_epoch,
                epochs=call.end_epoch,
                steps_per_epoch=call.steps,
                callbacks=list(callbacks),
                shuffle=False,  # the batches are shuffled already; Keras warns about its default
                verbose=verbose,
            )


def _start_phase(run: Run, index: int, state: State | None) -> None:
    """Choose the layers and make the optimizer; restore a stored optimizer if it belongs to this phase."""
    training = run.config.training
    phase = training.stages[index]
    continues = state is not None and state.facts["counters"]["phase"] == index
    run.counters.phase = index
    strategy = run.model.distribute_strategy
    with strategy.scope():
        set_trainable(run.network, phase.layers)
        rate = training.learning_rate if phase.learning_rate is None else phase.learning_rate
        steps = phase.epochs * training.steps_per_epoch
        optimizer = build_optimizer(training, rate, steps, strategy.num_replicas_in_sync)
        run.model.compile(optimizer=optimizer)
        optimizer.build(run.model.trainable_variables)
        if state is not None and continues:
            restore_optimizer(run, state)


def _resume_metrics(run: Run, callbacks: Sequence[keras.callbacks.Callback], state: State) -> None:
    for callback in callbacks:
        if isinstance(callback, StateSaver):
            callback.resume_with(lambda: restore_metrics(run, state))


def _finish_epoch(run: Run, callbacks: Sequence[keras.callbacks.Callback], state: State | None) -> None:
    """Do what `fit` does after the last step of an epoch, for a run that was interrupted between the two."""
    if state is not None:
        restore_metrics(run, state)
    logs = {metric.name: float(metric.result()) for metric in run.model.metrics}
    for callback in callbacks:
        callback.set_model(run.model)
    for callback in callbacks:
        callback.on_epoch_end(run.counters.epochs, logs)
