"""How a run is watched and kept."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from maskrcnn.callbacks import Say, say_nothing


@dataclass(frozen=True)
class TrainOptions:
    """How a run is watched and kept; nothing here changes what is learnt.

    Attributes:
        evaluate_every: Epochs from one COCO evaluation to the next; 0 leaves them out, and the validation loss, if
            `config.training.validation_steps` asks for one, decides which epoch is best.
        patience: Validated epochs without a better score after which the run ends; None never ends it.
        state_steps: Steps between two saves of the state; 0 saves it after epochs only.
        keep: Checkpoints of single epochs to keep, beside the last and the best.
        tensorboard: Write for TensorBoard.
        log_steps: Steps from one point of its curves to the next.
        verbose: Of `fit`: 0 silent, 1 a bar, 2 a line per epoch; "auto" chooses.
        progress: Told what is being done.
        callbacks: More Keras callbacks. They see the logs of an epoch with its scores, and keep no state over a resume.
        build_backbone: Makes the Keras backbone of a configuration with backbone "custom".
    """

    evaluate_every: int = 1
    patience: int | None = None
    state_steps: int = 500
    keep: int = 0
    tensorboard: bool = True
    log_steps: int = 10
    verbose: int | str = "auto"
    progress: Say = say_nothing
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    build_backbone: Callable[[], keras.Model] | None = None
