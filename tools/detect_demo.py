"""Print what an artifact detects in the demo image, as JSON: `python -I detect_demo.py ARTIFACT`.

`check_wheel` runs this in an environment that holds only the wheel and the engine, so it imports nothing from `tools`.
"""

import json
import sys
from importlib.metadata import distributions
from pathlib import Path

import runtime

if __name__ == "__main__":
    folder = Path(runtime.__file__).parents[1]
    with runtime.Predictor(sys.argv[1], "cpu") as predictor:
        found = predictor(folder / "maskrcnn" / "demo.jpg")
    answer = {
        "folder": str(folder),
        "packages": sorted(each.metadata["Name"].lower() for each in distributions()),
        "classes": [found.class_names[index] for index in found.class_ids],
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
    }
    sys.stdout.write(json.dumps(answer) + "\n")
