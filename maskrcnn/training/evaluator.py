"""Evaluate the network as it is at the moment: COCO scores, drawn detections, activations."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from maskrcnn.checkpoint_predictor import CheckpointPredictor
from maskrcnn.data.records import Dataset, Record
from maskrcnn.evaluation.coco_ap import KINDS, coco_average_precision
from maskrcnn.evaluation.evaluate import predict_dataset
from maskrcnn.intermediates.activations import Activation, layer_activations, stage_activations
from maskrcnn.intermediates.stage_run import ModelStages
from maskrcnn.model import MaskRCNN
from maskrcnn.training.run import Logs
from maskrcnn.training.workers import gather, together, worker_count, worker_index


class Evaluator:
    """Predicts with the current weights of a network, which may change between two calls."""

    def __init__(self, network: MaskRCNN) -> None:
        # Made once, because each one traces the graph again.
        self._network, self._predictor, self._stages = network, CheckpointPredictor(network), ModelStages(network)

    def scores(self, dataset: Dataset) -> Logs:
        """Return COCO AP and AP50 of boxes and masks; none for a dataset without objects.

        Of several workers, each predicts its part of the images. The first one scores all predictions, so that all
        workers have the same numbers and decide alike.

        Raises:
            TrainingError: Another worker cannot predict its images.
        """
        strategy = self._network.distribute_strategy
        own, count = worker_index(strategy), worker_count(strategy)
        part = replace(dataset, records=dataset.records[own::count])
        results, _ = together(strategy, lambda: predict_dataset(self._predictor, part), "validate")
        parts = gather(strategy, json.dumps(results).encode())
        scores = together(strategy, lambda: {} if own else _average_precision(dataset, parts), "validate")
        found: Logs = json.loads(gather(strategy, json.dumps(scores).encode())[0])
        return found

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


def _average_precision(dataset: Dataset, parts: Sequence[bytes]) -> Logs:
    summaries = coco_average_precision(dataset, [result for part in parts for result in json.loads(part)])
    found = {f"{kind}_{name.lower()}": summaries[kind][name] for kind in KINDS for name in ("AP", "AP50")}
    return {name: value for name, value in found.items() if value is not None}
