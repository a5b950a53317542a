"""Evaluate the network as it is at the moment: COCO scores, drawn detections, activations."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskrcnn.checkpoint_predictor import CheckpointPredictor
from maskrcnn.data.records import Dataset, Record
from maskrcnn.evaluation.evaluate import evaluate
from maskrcnn.intermediates.activations import Activation, layer_activations, stage_activations
from maskrcnn.intermediates.stage_run import ModelStages
from maskrcnn.model import MaskRCNN
from maskrcnn.training.run import Logs


class Evaluator:
    """Predicts with the current weights of a network, which may change between two calls."""

    def __init__(self, network: MaskRCNN) -> None:
        # Made once, because each one traces the graph again.
        self._network, self._predictor, self._stages = network, CheckpointPredictor(network), ModelStages(network)

    def scores(self, dataset: Dataset) -> Logs:
        """Return COCO AP and AP50 of boxes and masks; none for a dataset without objects."""
        evaluation = evaluate(self._predictor, dataset)
        found = {
            f"{kind}_{name.lower()}": getattr(evaluation, kind)[name]
            for kind in ("bbox", "segm")
            for name in ("AP", "AP50")
        }
        return {name: value for name, value in found.items() if value is not None}

    def activations(self, record: Record) -> list[Activation]:
        """Return the activations of an image: C2..C5, the RPN, P2..P6 and the crops."""
        config = self._network.config
        run = self._stages.run(record.load_image(config.model.image_channels, config.pixels))
        return [*layer_activations(self._network, run), *stage_activations(run)]

    def drawn_detections(self, records: Sequence[Record]) -> list[npt.NDArray[np.uint8]]:
        """Return images uint8 [H, W, 3] with their detections drawn on them."""
        config = self._network.config
        images = [record.load_image(config.model.image_channels, config.pixels) for record in records]
        found = [(image, self._predictor(image)) for image in images]
        shown = config.detection.min_score
        return [np.asarray(each[each.scores >= shown].draw(image)) for image, each in found]
