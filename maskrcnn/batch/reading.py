"""What Ray Data calls to read images: the only classes of ours with bases of Ray's."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from ray.data.block import BlockMetadata
from ray.data.checkpoint.checkpoint_filter import IdColumnCheckpointManager
from ray.data.datasource import Datasource, ReadTask

from maskrcnn.batch.sources import read_pictures


class PictureSource(Datasource):
    """Reads each block of paths in a task."""

    def __init__(self, blocks: Sequence[list[str]]) -> None:
        super().__init__()
        self._blocks = blocks

    def estimate_inmemory_data_size(self) -> int | None:
        """Return that it is unknown."""
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """Return a task for each block, whatever number Ray asks for."""
        return [ReadTask(partial(_read, block), BlockMetadata(len(block), None, None, None)) for block in self._blocks]


def _read(paths: Sequence[str]) -> Iterable[Any]:
    yield read_pictures(paths)


class NothingToFilter(IdColumnCheckpointManager):
    """Filters no images at the start: those with rows are left out before anything is read."""

    def load_checkpoint(self, *_: Any, **__: Any) -> tuple[None, int]:
        """Return that there is nothing to filter by."""
        return None, 0
