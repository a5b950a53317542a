"""Images on many machines: a worker for pipelines on Ray, Spark or Dask, and whole runs on Ray Data.

Names are loaded when they are used; none of them imports Ray before a cluster is.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrcnn.batch.actor import PredictActor as PredictActor
    from maskrcnn.batch.run import (
        BatchOptions as BatchOptions,
        BatchRun as BatchRun,
        predict_dataset as predict_dataset,
    )

_HOMES = {"PredictActor": "actor", "BatchOptions": "run", "BatchRun": "run", "predict_dataset": "run"}
__all__ = ["BatchOptions", "BatchRun", "PredictActor", "predict_dataset"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"maskrcnn.batch.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
