"""An exported model, looked into through the tensors between its stages."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.dataclass_json import from_dict
from maskrcnn.configuration.model import Config
from maskrcnn.intermediates.stage_run import Floats, StageRun, shown
from runtime.errors import ArtifactError
from runtime.pictures.read import ImageSource, read_image
from runtime.placement import Placement

if TYPE_CHECKING:
    from runtime.predictor import Predictor


class ArtifactStages:
    """Runs an artifact and keeps what is between its stages.

    Args:
        predictor: With the artifact loaded.

    Raises:
        ArtifactError: The artifact does not carry its model's configuration.
        ConfigError: The configuration that it carries is not one of ours.
    """

    def __init__(self, predictor: "Predictor") -> None:
        if not predictor.metadata.config:
            raise ArtifactError(
                "the artifact does not carry the configuration of its model, as older ones do not: export it again "
                "to look inside"
            )
        self.predictor = predictor
        self.config = from_dict(Config, predictor.metadata.config, "the artifact's configuration")

    def run(self, image: ImageSource) -> StageRun:
        """One picture's way through the graph.

        Raises:
            ImageError: The picture cannot be used.
        """
        picture = read_image(image, self.config.model.image_channels)
        letterbox, prepared = self.predictor.prepare(picture)
        found = self.predictor.borders(prepared[None], np.array([letterbox.window], np.float32))
        tensors = {name: array if name.endswith("rois") else array[0] for name, array in found.items()}
        thresholds = self.predictor.score_threshold, self.predictor.nms_threshold
        return StageRun(self.config, shown(picture), letterbox, prepared, tensors, *thresholds)

    def masks(self, run: StageRun, boxes: Floats, class_ids: npt.NDArray[np.int32]) -> None:  # noqa: ARG002
        """An artifact makes masks of its own detections only."""
        return


def placement_rows(placement: Placement) -> list[tuple[str, str, int, float]]:
    """Provider or device, operator type, nodes, milliseconds; the longest first."""
    rows = [(*key, count, placement.milliseconds.get(key, 0.0)) for key, count in placement.counts.items()]
    return sorted(rows, key=lambda row: (-row[3], row))
