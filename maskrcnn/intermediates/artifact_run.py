"""Run an exported model and keep its stage boundary tensors."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskrcnn.configuration.dataclass_json import from_dict
from maskrcnn.configuration.model import Config
from maskrcnn.intermediates.prepared import shown
from maskrcnn.intermediates.stage_run import Floats, StageRun
from runtime.errors import ArtifactError
from runtime.pictures.read import ImageSource, read_image
from runtime.placement import Placement

if TYPE_CHECKING:
    from runtime.predictor import Predictor


class ArtifactStages:
    """Runs an artifact and keeps its stage boundary tensors.

    Raises:
        ArtifactError: The artifact does not store the configuration of its model.
    """

    def __init__(self, predictor: "Predictor") -> None:
        if not predictor.metadata.config:
            raise ArtifactError(
                "the artifact does not store the configuration of its model, because an older version made it: "
                "export it again to inspect it"
            )
        self.predictor = predictor
        self.config = from_dict(Config, predictor.metadata.config, "the artifact's configuration")

    def run(self, image: ImageSource) -> StageRun:
        """Run one image through the graph."""
        picture = read_image(image, self.config.model.image_channels, pixels=self.predictor.pixels)
        letterbox, prepared = self.predictor.prepare(picture)
        found = self.predictor.borders(prepared[None], np.array([letterbox.window], np.float32))
        tensors = {name: array if name.endswith("rois") else array[0] for name, array in found.items()}
        thresholds = self.predictor.score_threshold, self.predictor.nms_threshold
        return StageRun(self.config, shown(picture), letterbox, prepared, tensors, *thresholds)

    def masks(self, run: StageRun, boxes: Floats, class_ids: npt.NDArray[np.int32]) -> None:  # noqa: ARG002
        """Return None: an artifact predicts masks of its own detections only."""
        return


def placement_rows(placement: Placement) -> list[tuple[str, str, int, float]]:
    """Return rows of provider or device, operator type, number of nodes and milliseconds, the longest first."""
    rows = [(*key, count, placement.milliseconds.get(key, 0.0)) for key, count in placement.counts.items()]
    return sorted(rows, key=lambda row: (-row[3], row))
