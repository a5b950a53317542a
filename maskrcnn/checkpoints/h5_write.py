"""HDF5 files that appear whole or not at all.

The library writes as it likes until a file is closed, and where the disk refuses by then, it may end the process. So a
file is made in memory and handed to the disk as plain bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import h5py

from runtime.atomic import atomic_write


@contextmanager
def writing_h5(path: str | Path, *, overwrite: bool) -> Iterator[h5py.File]:
    """A file to fill; it is written when the block ends without an error.

    Args:
        path: Where it shall appear.
        overwrite: Whether a file that stands there may be replaced.

    Raises:
        OutputError: Something stands there, or the disk refuses.
    """
    with atomic_write(path, overwrite=overwrite) as temporary:
        content = BytesIO()
        with h5py.File(content, "w") as file:
            yield file
        temporary.write_bytes(content.getbuffer())
