"""Pretrained weights by name: what there is, who published it, and how it is told from other files."""

import os
from dataclasses import dataclass
from pathlib import Path

from maskrcnn.checkpoints.families.choices import Choices
from maskrcnn.checkpoints.families.class_names import BACKGROUND, coco_names
from maskrcnn.configuration.samples import BALLOON, COCO
from runtime.artifact_files.savedmodel_folder import MANIFEST


@dataclass(frozen=True)
class Pretrained:
    """Weights that somebody published.

    Attributes:
        name: What stands for them where a checkpoint is taken.
        network: What they are, in a few words.
        url: Address of the file.
        size: Bytes of the file; None: not known for sure.
        digest: "sha256:..." or "md5:..." of the file; None: not known for sure.
        choices: What a user would have to say about the file: configuration, family, class names.
        class_names: Background first.
        license: As the publisher states it.
        source: Page of the publisher.
        about: Megabytes of the file, roughly, where `size` is None.
    """

    name: str
    network: str
    url: str
    size: int | None
    digest: str | None
    choices: Choices
    class_names: tuple[str, ...]
    license: str
    source: str
    about: int | None = None

    @property
    def file(self) -> str:
        """Name of the file, in the cache and on a mirror."""
        return self.url.rpartition("/")[2]

    def with_choices(self, given: Choices) -> Choices:
        """Return what a user says about the weights, completed by what is known about them."""
        known = self.choices
        return Choices(
            known.config if given.config is None else given.config,
            known.family if given.family is None else given.family,
            known.classes if given.classes is None else given.classes,
            (*known.settings, *given.settings),
        )


_MATTERPORT = "https://github.com/matterport/Mask_RCNN/releases"
_TORCHVISION = "https://download.pytorch.org/models"
_TORCHVISION_PAGE = "https://docs.pytorch.org/vision/stable/models/mask_rcnn.html"
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/COCO-InstanceSegmentation"
# The families keep detections from 0.05 on, for measurements of AP; an image is unreadable with so many.
_SHOWN = ("detection.min_score=0.5",)

# Where sizes and digests come from: docs/models.md.
PRETRAINED: dict[str, Pretrained] = {
    each.name: each
    for each in (
        Pretrained(
            "coco",
            "matterport ResNet-101",
            f"{_MATTERPORT}/download/v2.0/mask_rcnn_coco.h5",
            257_557_808,
            "md5:e98aaff6f99e307b5e2a8a3ff741a518",
            Choices(COCO),
            COCO.model.class_names,
            "MIT",
            f"{_MATTERPORT}/tag/v2.0",
        ),
        Pretrained(
            "balloon",
            "matterport ResNet-101",
            f"{_MATTERPORT}/download/v2.1/mask_rcnn_balloon.h5",
            None,
            None,
            Choices(BALLOON),
            BALLOON.model.class_names,
            "MIT",
            f"{_MATTERPORT}/tag/v2.1",
            about=256,
        ),
        Pretrained(
            "coco-torchvision",
            "torchvision ResNet-50",
            f"{_TORCHVISION}/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
            178_090_079,
            "sha256:bf2d0c1efbc936eeee2bc95a48e80ebc86b891f61b0106485937fc29f9315fc0",
            Choices(family="torchvision", classes="coco", settings=_SHOWN),
            (BACKGROUND, *(coco_names(90) or ())),
            "BSD-3-Clause",
            _TORCHVISION_PAGE,
        ),
        Pretrained(
            "coco-torchvision-v2",
            "torchvision ResNet-50 v2",
            f"{_TORCHVISION}/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth",
            185_828_065,
            "sha256:73cbd0190fcbe3ba339921fbce2c3a0b6bb9126c9a133c85e43a2a8e060a109e",
            Choices(family="torchvision", classes="coco", settings=_SHOWN),
            (BACKGROUND, *(coco_names(90) or ())),
            "BSD-3-Clause",
            _TORCHVISION_PAGE,
        ),
        Pretrained(
            "coco-detectron2",
            "Detectron2 ResNet-50",
            f"{_DETECTRON2}/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl",
            177_841_981,
            "sha256:9a737e290372f1f70994ebcbd89d8004dbb3ae30a605fd915a190fa4a782dd66",
            Choices(family="detectron2", classes="coco", settings=_SHOWN),
            COCO.model.class_names,
            "CC BY-SA 3.0",
            "https://github.com/facebookresearch/detectron2/blob/main/MODEL_ZOO.md",
        ),
    )
}


def is_taken(name: str | Path) -> bool:
    """Return whether a name that stands for a model is that of a file or SavedModel folder here, which then counts."""
    return os.path.isfile(name) or os.path.isfile(os.path.join(name, MANIFEST))  # noqa: PTH113, PTH118


def find_pretrained(name: str | Path) -> Pretrained | None:
    """Return the pretrained weights that a name stands for; None if it is another word, or the path of a model."""
    found = PRETRAINED.get(str(name))
    return None if found is None or is_taken(name) else found
