"""Execute docs/tutorial.ipynb: `python -m tools.check_notebook`, or `make notebook`.

It runs in a temporary folder, as a reader's copy would, with one more cell, which checks what the text promises. With
`--save`, the outputs are stored in the notebook, which the documentation site shows.
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tools.environments import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
_SECONDS = 900  # for one cell
_PROMISES = """
assert verdict.passed
assert evaluation.segm["AP"] > 0.5, evaluation.segm["AP"]
assert "image/png" in predictor(image)._repr_mimebundle_()
"""


def main(*arguments: str) -> int:
    """Execute the notebook; returns 0. A cell that fails raises."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(_PROMISES))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        NotebookClient(notebook, timeout=_SECONDS, resources={"metadata": {"path": folder}}).execute()
    sys.stdout.write(f"{NOTEBOOK.name} executed in {time.perf_counter() - begun:.0f} s\n")
    texts = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())]
    sys.stdout.write("".join(texts))
    if "--save" in arguments:
        del notebook.cells[-1]
        for cell in notebook.cells:  # TensorFlow tells on stderr what it misses in this machine
            cell.metadata.pop("execution", None)  # times, which differ in every run
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.get("outputs", ()):
                if "image/jpeg" in output.get("data", ()):
                    del output["data"]["image/png"]  # the same in ten times the bytes
        Path(NOTEBOOK).write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
