"""Repeat factors: how often a pass over a dataset visits each image, so that rare classes are seen more often."""

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from maskrcnn.data.records import Dataset

# Factors are whole thousandths, so that places in the order of images are exact.
FACTOR_UNIT = 1000


def repeat_factors(dataset: Dataset, threshold: float) -> tuple[dict[int, float], npt.NDArray[np.int64]]:
    """Return the repeat factors of LVIS (Gupta et al., arXiv 1908.03195, section 4) of classes and of images.

    Crowds are no objects.

    Args:
        dataset: Its annotations are read once.
        threshold: Share of the images, 0 to 1, from which on the images with a class are not repeated for it.

    Returns:
        max(1, sqrt(threshold / share of the images with the class)) by class id, for classes with objects; and for each
        image the largest factor of its classes, int64 [N] thousandths, `FACTOR_UNIT` for one without objects.
    """
    images = [{each.class_id for each in record.load_instances() if not each.crowd} for record in dataset.records]
    counts = Counter(class_id for classes in images for class_id in classes)
    factors = {
        class_id: max(1.0, math.sqrt(threshold * len(images) / count)) for class_id, count in sorted(counts.items())
    }
    largest = [max((factors[class_id] for class_id in classes), default=1.0) for classes in images]
    return factors, np.rint(np.array(largest) * FACTOR_UNIT).astype(np.int64)
