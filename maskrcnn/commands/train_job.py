"""A training run as the command line describes it, in this process or in a worker on another machine."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.checkpoints.families.choices import Choices
from maskrcnn.checkpoints.families.recognize import Family
from maskrcnn.checkpoints.pretrained import find_pretrained
from maskrcnn.commands import console, shared
from maskrcnn.data.readers.options import DatasetFormat, ReadOptions
from maskrcnn.runs.folder_lock import locked
from maskrcnn.tensorflow_import import import_tensorflow
from maskrcnn.training.cluster import TF_CONFIG

if TYPE_CHECKING:
    from maskrcnn.data.augment_hook import AugmentHook
    from maskrcnn.data.records import Dataset
    from maskrcnn.data.split import SplitOptions
    from maskrcnn.training.run import RunFolder


@dataclass(frozen=True)
class TrainJob:
    """The options of `maskrcnn train` that say what is trained."""

    datasets: Sequence[Path]
    output: Path
    validation: Sequence[Path]
    images: Sequence[Path]
    validation_images: Sequence[Path]
    config: str | None
    init: str | None
    family: Family | None
    class_names: str | None
    resume: bool
    settings: Sequence[str]
    layers: str | None
    epochs: int | None
    format: DatasetFormat | None
    class_attribute: str | None
    skip_bad: bool
    options: ReadOptions
    augment_with: str | None = None
    split: "SplitOptions | None" = None  # how validation data are set apart

    def absolute(self) -> "TrainJob":
        """Return the same job for processes in other folders."""
        lists = ("datasets", "validation", "images", "validation_images")
        changed: dict[str, Any] = {name: [path.absolute() for path in getattr(self, name)] for name in lists}
        for name in ("config", "init", "class_names"):
            value = getattr(self, name)
            if name == "init" and value and (value in shared.WORDS_OF_INIT or find_pretrained(value) is not None):
                continue
            changed[name] = str(Path(value).absolute()) if value and Path(value).exists() else value
        file, colon, function = (self.augment_with or "").rpartition(":")
        if file.endswith(".py"):
            changed["augment_with"] = f"{Path(file).absolute()}{colon}{function}"
        return replace(self, output=self.output.absolute(), **changed)

    def check(self) -> None:
        """Refuse a run folder that holds a run, unless that is to be resumed."""
        from maskrcnn.training.run import RunFolder  # noqa: PLC0415
        from maskrcnn.training.train import check_state  # noqa: PLC0415

        check_state(RunFolder(self.output), "auto" if self.resume else False)

    def run(self, *, restarted: bool = False, begun: Callable[[], None] = lambda: None) -> int:
        """Train, and print progress and result; return the exit code.

        `begun` is called once it is known that the options and the datasets can be used.
        """
        several = bool(os.environ.get(TF_CONFIG))
        resume = self.resume or restarted
        # With several workers, nothing is refused before they are connected, so that all hear of it.
        if not several and self.output.is_dir():
            with locked(self.output, "train"):  # a folder in use is refused at once, not after the data is read
                pass
        settings_of_model = [setting for setting in self.settings if not setting.startswith(shared.RUN_PREFIX)]
        choices = shared.choose(self.config, self.family, self.class_names, settings_of_model)
        from maskrcnn.training.plan import plan_run  # noqa: PLC0415

        opened, prepared = (None, None) if several else self._prepare(choices, resume)
        console.progress("loading TensorFlow")
        import_tensorflow(touch_devices=not several)
        from maskrcnn.training.progress import TrainingProgress  # noqa: PLC0415
        from maskrcnn.training.run import RunFolder  # noqa: PLC0415
        from maskrcnn.training.strategies import find_strategy  # noqa: PLC0415
        from maskrcnn.training.train import train as run_training  # noqa: PLC0415
        from maskrcnn.training.workers import losses_named, together, worker_index  # noqa: PLC0415

        def prepare() -> Any:
            resumes = resume and RunFolder(self.output).state.exists()
            start = opened or (self.init if resumes else shared.open_start(self.init, choices))
            folder = self.output if resume else None
            plan = plan_run(self.config, start, folder, self.layers, self.epochs, self.settings, console.progress)
            return start, plan, *(prepared or self._read_data())

        strategy = find_strategy()
        with losses_named(strategy):
            start, (chosen, options), augment, training, validation = together(strategy, prepare)
        begun()
        console.datasets(training, validation)
        own_line = options.verbose == "auto" and worker_index(strategy) == 0
        with console.progress_bar() if own_line else nullcontext() as shown:
            if shown is not None:
                own = TrainingProgress(chosen.training, shown)
                options = replace(options, verbose=0, callbacks=(*options.callbacks, own))
            options = replace(options, split=None if self.split is None else str(self.split))
            result = run_training(
                chosen,
                training,
                validation,
                output=self.output,
                init=start,
                resume="auto" if resume else False,
                strategy=strategy,
                options=options,
                augment=augment,
            )
        code = console.training(result)
        if code == 0:
            console.useful_next(*self.useful_next(result.folder))
        return code

    def _prepare(self, choices: Choices, resume: bool) -> Any:
        """Refuse what cannot be used, without TensorFlow; return the opened initial weights and the data."""
        from maskrcnn.data.readers.open import require_existing  # noqa: PLC0415
        from maskrcnn.training.plan import plan_config  # noqa: PLC0415

        require_existing([*self.datasets, *self.validation])
        if resume:
            return None, self._read_data()
        opened = shared.open_start(self.init, choices)
        chosen, _ = plan_config(self.config, opened or self.init, None, self.layers, self.epochs, self.settings)
        data = self._read_data()
        chosen.training.weights_of(data[1].class_names)
        return opened, data

    def _read_data(self) -> "tuple[AugmentHook | None, Dataset, Dataset | None]":
        """Import the augmentation, and open the training data and, if there is any, the validation data."""
        from maskrcnn.data.augment_hook import find_hook  # noqa: PLC0415
        from maskrcnn.data.readers.open import open_datasets, open_each  # noqa: PLC0415
        from maskrcnn.data.records import combine  # noqa: PLC0415
        from maskrcnn.data.split import TRAIN, VAL, split_datasets  # noqa: PLC0415

        augment = None if self.augment_with is None else find_hook(self.augment_with)
        read: dict[str, Any] = {"format": self.format, "class_attribute": self.class_attribute}
        read |= {"skip_bad": self.skip_bad, "options": self.options, "report": console.dataset_report}
        if self.split is not None:
            found = split_datasets(open_each(self.datasets, images=self.images or None, **read), self.split)
            for line in found.notes:
                console.progress(line)
            for line in found.warnings:
                console.warning(line)
            return augment, combine(found.parts[TRAIN]), combine(found.parts[VAL])
        training, given = open_datasets(self.datasets, images=self.images or None, **read), self.validation
        images = self.validation_images or None
        return augment, training, open_datasets(given, images=images, **read) if given else None

    def useful_next(self, folder: "RunFolder") -> list[str]:
        """Return the commands that measure and export what was trained."""
        trained = folder.best if folder.best.exists() else folder.last
        of_dataset = {"format": self.format, "class_attribute": self.class_attribute, "skip_bad": self.skip_bad}
        of_dataset |= {"by_name": self.options.by_name, "boxes_as_masks": self.options.boxes_as_masks}
        of_dataset |= {"mask_values": self.options.mask_values, "encoding": self.options.encoding}
        images = self.validation_images or (None,)
        if self.split is not None:
            return [console.command("maskrcnn", "evaluate", trained, folder.validation), shared.export_command(trained)]
        evaluations = [
            console.command("maskrcnn", "evaluate", trained, dataset, images=images[number % len(images)], **of_dataset)
            for number, dataset in enumerate(self.validation)
        ]
        return [*evaluations, shared.export_command(trained)]
