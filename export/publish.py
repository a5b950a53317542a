"""The order in which an artifact comes to be: draft, judgement, final bytes, rename, verdict beside."""

import json
from collections.abc import Callable
from pathlib import Path

from export.verify.verdict import Verdict
from runtime.artifact_files.read import read_metadata
from runtime.artifact_files.savedmodel_folder import MANIFEST
from runtime.atomic import atomic_write, check_output

VERDICT_SUFFIX = ".verdict.json"


def publish(
    output: Path,
    write: Callable[[Path, Verdict | None], None],
    judge: Callable[[Path], Verdict],
    *,
    overwrite: bool,
    directory: bool,
) -> Verdict:
    """Write an artifact under a temporary name, judge it there, and only then put it in place.

    Args:
        output: Where the artifact shall stand.
        write: Writes the artifact, without a verdict first and with it afterwards.
        judge: Compares what was written with the model; raises when it does not pass.
        overwrite: Whether something at `output` may be replaced.
        directory: Whether the artifact is a folder.
    """
    beside = output.with_name(output.name + VERDICT_SUFFIX)
    check_output(beside, overwrite=overwrite)
    marker = MANIFEST if directory else None
    with (
        atomic_write(beside, overwrite=overwrite) as verdict_file,
        atomic_write(output, overwrite=overwrite, directory=directory, marker=marker) as temporary,
    ):
        write(temporary, None)
        verdict = judge(temporary)
        write(temporary, verdict)
        read_metadata(temporary)  # what applications will do first
        # Before the artifact is in place: a disk that is full here has to leave the old one.
        verdict_file.write_text(json.dumps(verdict.to_dict(), indent=1) + "\n", encoding="utf-8")
    return verdict
