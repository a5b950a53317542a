"""A PyTorch checkpoint of a known family: its weights, its configuration, and where each setting came from."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.checkpoints.families.choices import Choices
from maskrcnn.checkpoints.families.class_names import BACKGROUND, chosen_names, coco_names, numbered_names
from maskrcnn.checkpoints.families.config_values import FamilyConfig
from maskrcnn.checkpoints.families.detectron2_config import detectron2_settings
from maskrcnn.checkpoints.families.mmdetection_config import mmdetection_settings
from maskrcnn.checkpoints.families.presets import MEAN, PUBLISHED, preset, takes_bgr
from maskrcnn.checkpoints.families.recognize import TITLES, Family, Recognized, recognize, weights_of
from maskrcnn.checkpoints.pytorch.detectron2_config import read_detectron2_config
from maskrcnn.checkpoints.pytorch.mmdet_config import read_mmdet_config
from maskrcnn.checkpoints.pytorch.state_dict import read_state
from maskrcnn.configuration.dataclass_json import to_dict
from maskrcnn.configuration.model import Config
from maskrcnn.configuration.overrides import config_of, split_setting
from maskrcnn.configuration.samples import find_config
from maskrcnn.errors import ArgumentError, CheckpointMismatchError, ConfigError

_FAMILY_OF_SUFFIX: dict[str, Family] = {".yaml": "detectron2", ".yml": "detectron2", ".py": "mmdetection"}
_SHAPES, _OPTIONS, _CLASSES = "names and shapes", "--set", "--classes"


@dataclass(frozen=True)
class FamilyFile:
    """A PyTorch checkpoint that was read.

    Attributes:
        path: The file.
        found: The network that it is for.
        config: The complete configuration.
        tensors: The weights by their names in the family.
        bgr: Whether the weights expect blue first.
        origins: Where each setting that differs from our defaults came from, by its dotted name.
        sha256: Of the file.
        own_names: Whether the class names are real, and not numbers for want of any.
    """

    path: Path
    found: Recognized
    config: Config
    tensors: Mapping[str, NDArray[Any]]
    bgr: bool
    origins: Mapping[str, str]
    sha256: str
    own_names: bool

    def report(self, said: bool) -> Iterator[str]:
        """Yield sentences: what the file is, and where its settings came from; `said`: the user named the family."""
        known = next((title for start, title in PUBLISHED.items() if self.sha256.startswith(start)), None)
        how = "" if said else ", recognized by its names"
        yield f"{self.path.name}: {self.found.title}{how}" + (f"; it is {known}, by its SHA-256" if known else "")
        values = _leaves(to_dict(self.config))
        by_origin: dict[str, list[str]] = {}
        for name, origin in self.origins.items():
            shown = f"{len(values[name]) - 1} names" if name == "model.class_names" else json.dumps(values[name])
            by_origin.setdefault(origin, []).append(f"{name} {shown}")
        for origin, settings in by_origin.items():
            yield f"from {origin}: {', '.join(settings)}"
        if not self.own_names:
            yield "nothing names its classes, so they have numbers: give the names with --classes"


def read_family(path: str | Path, choices: Choices) -> FamilyFile:
    """Read a PyTorch checkpoint and find its configuration.

    Each of these overrides the ones before: the preset of the family; names and shapes of the weights; the family's own
    configuration, in the file (MMDetection) or given; a configuration of ours, which replaces everything; class names;
    settings.

    Raises:
        CheckpointError: The file cannot be read, is for a network that is not supported or not known, or is of another
            family than the user says.
        ConfigError: The configuration cannot be used, or is for other weights.
        ArgumentError: The class names or a setting do not fit.
    """
    path = Path(path)
    state = read_state(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = weights_of(state.tensors)
    shapes = {name: tuple(array.shape) for name, array in tensors.items()}
    found = recognize(shapes, path.name, choices.family)
    own, where = _family_config(path, found, state.extras, choices)
    bgr = takes_bgr(found.family) if own.bgr is None else own.bgr
    layers = [(f"the preset of {TITLES[found.family]}", preset(found, sha256)), (_SHAPES, _sizes(found))]
    layers += [("pixel_mean and pixel_std in the file", _stored_pixels(state.tensors, path, found.family, own.bgr))]
    layers += [(where, own.settings)]
    names, names_from = _class_names(path, found, own, where, state.extras, sha256, choices)
    complete = _complete_config(choices)
    if complete is None:
        layers += [(names_from, {"model.class_names": names})]
    else:
        layers = [(f"the configuration {choices.config}", _leaves(to_dict(complete)))]
        layers += [(_CLASSES, {"model.class_names": names})] if choices.classes is not None else []
    values: dict[str, Any] = to_dict(complete or Config(name=path.name.split(".")[0]))
    origins = _put_layers(values, layers)
    try:
        config = config_of(values, choices.settings)
    except ConfigError as error:
        if choices.settings:
            raise ArgumentError(f"{path.name}: {error}") from error
        raise ConfigError(f"{path.name}: {error}; settings can be given with --set SECTION.NAME=VALUE") from error
    origins |= {split_setting(setting)[0]: _OPTIONS for setting in choices.settings}
    _require_anchors(path, found, config)
    own_names = complete is not None or names != (BACKGROUND, *numbered_names(found.classes))
    return FamilyFile(path, found, config, tensors, bgr, _differing(config, origins), sha256, own_names)


def _sizes(found: Recognized) -> dict[str, Any]:
    """Return what names and shapes say as settings; of the anchors, they say only how many."""
    return {name: value for name, value in found.settings.items() if name != "model.anchor_ratios"}


def _family_config(
    path: Path, found: Recognized, extras: Mapping[str, Any], choices: Choices
) -> tuple[FamilyConfig, str]:
    """Return what the family's own configuration says, and where that is."""
    given = None if isinstance(choices.config, Config) else choices.config
    kind = None if given is None else _FAMILY_OF_SUFFIX.get(Path(given).suffix)
    if kind is not None and kind != found.family:
        raise ConfigError(
            f"the configuration {given} is one of {TITLES[kind]}, and {path.name} is a checkpoint of "
            f"{TITLES[found.family]}: give its own"
        )
    if given is not None and kind == "detectron2":
        return detectron2_settings(read_detectron2_config(Path(given)), str(given), found), (
            f"{given} and Detectron2's defaults"
        )
    if given is not None and kind == "mmdetection":
        return mmdetection_settings(read_mmdet_config(Path(given)), str(given), found), f"{given}"
    if found.family == "mmdetection":
        text = _meta(extras, "cfg", "config")
        if not isinstance(text, str):
            raise ConfigError(
                f"{path.name} has no configuration of MMDetection in its meta, and weights do not say how images are "
                "normalized and where the strides are: give it with --config FILE.py"
            )
        where = f"the configuration in {path.name}"
        return mmdetection_settings(read_mmdet_config(text), where, found), where
    return FamilyConfig(), ""


def _meta(extras: Mapping[str, Any], *names: str) -> Any:
    """Return the first of several entries that MMDetection keeps beside the weights."""
    meta = extras.get("meta")
    found = (meta.get(name) for name in names) if isinstance(meta, Mapping) else iter(())
    return next((value for value in found if value), None)


def _complete_config(choices: Choices) -> Config | None:
    given = choices.config
    if given is None or isinstance(given, Config):
        return given
    return None if Path(given).suffix in _FAMILY_OF_SUFFIX else find_config(given)


def _stored_pixels(tensors: Mapping[str, NDArray[Any]], path: Path, family: Family, bgr: bool | None) -> dict[str, Any]:
    """Return mean and deviation that older checkpoints of Detectron2 hold, in the order of the network's channels.

    A known mean in an order that no configuration states (`bgr` None) and that is not the usual one is refused.
    """
    if family != "detectron2" or "pixel_mean" not in tensors:
        return {}
    mean = _channels(tensors["pixel_mean"])
    deviation = _channels(tensors.get("pixel_std", np.ones(len(mean))))
    if bgr is None and len(mean) == len(MEAN) and np.allclose(mean, MEAN, atol=1):
        raise CheckpointMismatchError(
            f"{path.name} has the pixel_mean {list(mean)}, which is not in the order BGR: give its configuration, "
            "which has the right INPUT.FORMAT, with --config FILE.yaml"
        )
    if bgr or (bgr is None and takes_bgr(family)):
        mean, deviation = mean[::-1], deviation[::-1]
    return {"model.mean_pixel": mean, "model.pixel_std": () if set(deviation) == {1.0} else deviation}


def _channels(tensor: NDArray[Any]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in np.asarray(tensor, np.float64).reshape(-1))


def _class_names(
    path: Path,
    found: Recognized,
    own: FamilyConfig,
    where: str,
    extras: Mapping[str, Any],
    sha256: str,
    choices: Choices,
) -> tuple[tuple[str, ...], str]:
    """Return the class names with the background, and where they are from."""
    if choices.classes is not None:
        return (BACKGROUND, *chosen_names(choices.classes, found.classes, path.name)), _CLASSES
    data = _meta(extras, "dataset_meta", "CLASSES")
    listed = (data.get("classes") or data.get("CLASSES")) if isinstance(data, Mapping) else data
    if found.family == "mmdetection" and isinstance(listed, list | tuple) and len(listed) == found.classes:
        return (BACKGROUND, *map(str, listed)), f"the meta of {path.name}"
    if own.class_file:
        raise ConfigError(
            f"{where} has the class names {own.class_file[:80]!r}, which MMDetection takes for a file: give this file, "
            "or the names, with --classes"
        )
    if own.class_names:
        if len(own.class_names) != found.classes:
            raise ConfigError(
                f"{where} has {len(own.class_names)} class names, and {path.name} {found.classes} classes"
            )
        return (BACKGROUND, *own.class_names), where
    coco = coco_names(found.classes)
    if coco is not None and own.coco:
        return (BACKGROUND, *coco), f"{where}, trained on COCO"
    if coco is not None and any(sha256.startswith(start) for start in PUBLISHED):
        return (BACKGROUND, *coco), "the SHA-256 of the file"
    return (BACKGROUND, *numbered_names(found.classes)), "the number of classes"


def _put_layers(values: dict[str, Any], layers: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Change the values of a configuration by layers of settings, in order, and return the origin of each setting."""
    origins: dict[str, str] = {}
    for origin, settings in layers:
        for name, value in settings.items():
            *sections, last = name.split(".")
            section = values
            for key in sections:
                section = section[key]
            section[last] = list(value) if isinstance(value, tuple) else value
            origins[name] = origin
    return origins


def _require_anchors(path: Path, found: Recognized, config: Config) -> None:
    count, given = found.settings["model.anchor_ratios"], config.model.anchor_ratios
    if count != len(given):
        raise CheckpointMismatchError(
            f"{path.name} has {count} anchors in a cell, the configuration {len(given)}: give width / height of each "
            "with --set 'model.anchor_ratios=[...]', or the family's own configuration with --config"
        )


def _differing(config: Config, origins: Mapping[str, str]) -> dict[str, str]:
    """Return the origins of the settings that differ from our defaults."""
    values, defaults = _leaves(to_dict(config)), _leaves(to_dict(Config()))
    return {name: origins[name] for name in values if name in origins and values[name] != defaults.get(name)}


def _leaves(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries by dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value}
    return found
