"""Images on many machines: a worker for pipelines on Ray, Spark or Dask, and whole runs on Ray Data.

Names are loaded when they are used; none of them imports Ray before a cluster is.
"""

from typing import TYPE_CHECKING

from runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from maskrcnn.batch.actor import PredictActor as PredictActor
    from maskrcnn.batch.run import (
        BatchOptions as BatchOptions,
        BatchRun as BatchRun,
        predict_dataset as predict_dataset,
    )

__all__, __dir__, __getattr__ = lazy_names(
    __name__,
    {"maskrcnn.batch.actor": "PredictActor", "maskrcnn.batch.run": "BatchOptions BatchRun predict_dataset"},
)
