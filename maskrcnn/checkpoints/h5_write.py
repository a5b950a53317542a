"""Atomic writing of HDF5 files.

The HDF5 library may abort the process if the disk fails while it closes a file. So the file is built in memory and
written to disk as plain bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.atomic import atomic_write

if TYPE_CHECKING:
    import h5py


@contextmanager
def writing_h5(path: str | Path, *, overwrite: bool) -> Iterator["h5py.File"]:
    """Yield an HDF5 file to fill; it is written to `path` when the block ends without an error."""
    import h5py  # noqa: PLC0415  (reading needs it for few files)

    with atomic_write(path, overwrite=overwrite) as temporary:
        content = BytesIO()
        with h5py.File(content, "w", libver="earliest") as file:  # what `h5_classic` reads
            yield file
        temporary.write_bytes(content.getbuffer())
