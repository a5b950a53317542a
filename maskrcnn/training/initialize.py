"""Initialize a network for training: random weights, then those of a file."""

from pathlib import Path

import keras
import numpy as np

from maskrcnn.checkpoints.architecture import CONFIG
from maskrcnn.checkpoints.checkpoint import load_family
from maskrcnn.checkpoints.families.family_file import FamilyFile
from maskrcnn.checkpoints.matterport_h5 import Arrays, read_arrays
from maskrcnn.checkpoints.named_weights import (
    HEAD_LAYERS,
    LoadReport,
    by_network_names,
    named_variables,
    set_arrays,
)
from maskrcnn.checkpoints.open_weights import Weights, open_weights
from maskrcnn.checkpoints.pretrained import find_pretrained
from maskrcnn.checkpoints.pytorch.state_dict import is_state_file
from maskrcnn.checkpoints.resnet_files import is_classifier, to_backbone
from maskrcnn.configuration.model import MASK_DECONVOLUTIONS, Config
from maskrcnn.demo import demo_checkpoint
from maskrcnn.errors import CheckpointMismatchError, TrainingError
from maskrcnn.model import MaskRCNN
from maskrcnn.training.fresh import fresh_weights

_IMAGENET = {"resnet50": "ResNet50", "resnet101": "ResNet101"}


def initialize(
    network: MaskRCNN, source: str | Path | Weights | None, seed: int = 0, exclude_heads: bool | None = None
) -> LoadReport:
    """Give a network its initial weights and return what was loaded and what stays random.

    Args:
        network: Changed in place.
        source: A matterport `.h5`, our `.weights.h5`, a ResNet `.h5` of Keras applications (for the backbone; blocks
            missing from it stay random), a PyTorch checkpoint of torchvision, Detectron2 or MMDetection, also opened
            (`maskrcnn.open_weights`), "imagenet" to let Keras download such a file, "demo" for the weights of the
            demo model, the name of pretrained weights, such as "coco", or None or "none" for random weights only.
        seed: Seed of the random weights.
        exclude_heads: Whether to leave the layers that depend on the number of classes random; None does so if the
            file has other classes or another number of them. Ignored for classifiers, which have no such layers. A
            second transposed convolution of the mask head that the file lacks keeps its initial weights, with which the
            masks are at first those of the file.

    Raises:
        CheckpointError: The file cannot be read, or does not fit the network.
        TrainingError: The ImageNet weights cannot be downloaded or do not exist for this backbone.
    """
    fresh_weights(network, seed)
    if source is None or source == "none":
        return LoadReport((), (), tuple(named_variables(network)), ())
    if source == "demo":
        with demo_checkpoint() as path:
            return initialize(network, path, seed, exclude_heads)
    if source == "imagenet":
        return _load_backbone(network, _imagenet_arrays(network.config), "the ImageNet weights")
    if not isinstance(source, Weights) and (find_pretrained(source) is not None or is_state_file(Path(source))):
        source = open_weights(source)
    if isinstance(source, Weights) and source.family is not None:
        return _load_family(network, source, source.family, exclude_heads)
    path = Path(source.path if isinstance(source, Weights) else source)
    found, attributes = read_arrays(path)
    if is_classifier(found):
        return _load_backbone(network, found, str(path))
    arrays = by_network_names(found, named_variables(network))
    if exclude_heads is None:
        stored = attributes.get(CONFIG)
        exclude_heads = _other_classes(network, arrays) or (
            stored is not None and Config.from_json(stored).model.class_names != network.config.model.class_names
        )
    has_second = any(key.startswith(f"{MASK_DECONVOLUTIONS[1]}/") for key in arrays)
    return set_arrays(network, arrays, str(path), exclude_heads, exclude=() if has_second else MASK_DECONVOLUTIONS[1:])


def _load_family(network: MaskRCNN, opened: Weights, file: FamilyFile, exclude_heads: bool | None) -> LoadReport:
    if exclude_heads is None:
        exclude_heads = opened.config.model.class_names != network.config.model.class_names
    return load_family(network, file, exclude_heads, exclude=MASK_DECONVOLUTIONS[1:])


def _other_classes(network: MaskRCNN, arrays: Arrays) -> bool:
    variables = named_variables(network)
    return any(
        key.split("/")[0] in HEAD_LAYERS and key in variables and tuple(variables[key].shape)[-1] != array.shape[-1]
        for key, array in arrays.items()
    )


def _load_backbone(network: MaskRCNN, classifier: Arrays, source: str) -> LoadReport:
    arrays = to_backbone(classifier)
    if network.config.model.image_channels != 3:
        arrays.pop("conv1/kernel", None)  # stays random and is reported as missing
    if not named_variables(network).keys() & arrays.keys():
        raise CheckpointMismatchError(
            f"{source} is a ResNet-50 or ResNet-101 classifier, but the backbone is "
            f"{network.config.model.backbone!r}: none of its layers fit"
        )
    return set_arrays(network, arrays, source, partial=True)


def _imagenet_arrays(config: Config) -> Arrays:
    backbone = config.model.backbone
    if backbone not in _IMAGENET:
        raise TrainingError(
            f"there are no ImageNet weights for the backbone {backbone!r}: use {' or '.join(_IMAGENET)}, or give a file"
        )
    try:
        model = getattr(keras.applications, _IMAGENET[backbone])(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception when the address cannot be reached
        raise TrainingError(
            f"the ImageNet weights cannot be downloaded ({str(error).splitlines()[0]}): get the 'notop' weight file of "
            f"{_IMAGENET[backbone]} from Keras applications some other way, and give its path"
        ) from error
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable.numpy(), np.float32)
        for layer in model.layers
        for variable in layer.variables
    }
