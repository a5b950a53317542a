"""Invalid and malicious annotation files, generated: each must be refused with one line, or read without harm.

A case writes its files into a folder and is opened there. The expected result is "refused" or "read".
"""

import base64
import json
import zlib

import numpy as np
from annotation_files import coco, write_coco, write_json, write_map, write_picture
from bad_pictures import png
from PIL import Image

HUGE = 10**4000
DEEP = 900  # nested as deep as json reads it, or nearly
ESCAPE = "\x1b[2J\x1b]0;owned\x07"


def _nested(depth):
    return "[" * depth + "]" * depth


def _change(section, index, **values):
    content = coco()
    content[section][index].update(values)
    return content


def _outline(*points):
    return _change("annotations", 0, segmentation=[list(points)])


def _runs(counts, size=(40, 60)):
    return _change("annotations", 2, segmentation={"size": list(size), "counts": counts})


def _coco_rows():
    """Contents of COCO files with one invalid row."""
    half = 5e307
    yield "far", _outline(1, 1, 2e8, 1, 5, 5), "refused"
    yield "1e308", _outline(1, 1, 1e308, -1e308, 5, 5), "refused"
    yield "int-of-4000-digits", _outline(1, 1, HUGE, 1, 5, 5), "refused"
    yield "infinite", _outline(1, 1, float("inf"), 1, 5, 5), "refused"
    yield "nan", _outline(1, 1, float("nan"), 1, 5, 5), "refused"
    yield "texts", _outline("1", "1", "9", "1", "5", "five"), "refused"
    yield "odd", _outline(1, 1, 9, 1, 5, 5, 7), "refused"
    yield "long", _outline(*[0, 0, 60, 40] * 200_000), "refused"
    yield "long-together", _change("annotations", 0, segmentation=[[0, 0, 60, 40] * 25_000] * 40), "refused"
    yield "box-1e308", _change("annotations", 0, bbox=[1e308, 1e308, 1e308, 1e308]), "read"
    yield "box-half", _change("annotations", 0, bbox=[half, half, half, half]), "read"
    yield "box-huge-int", _change("annotations", 0, bbox=[HUGE, 1, 1, 1]), "read"
    yield "box-negative", _change("annotations", 0, bbox=[1, 1, -5, 5]), "read"
    yield "runs-short", _runs([0, 40]), "refused"
    yield "runs-overrun", _runs([0, 40, 10**9]), "refused"
    yield "runs-negative", _runs([-1, 41, 2360]), "refused"
    yield "runs-huge", _runs([0, HUGE]), "refused"
    yield "runs-bomb", _runs([0, 2**31 - 1], (2**16, 2**15)), "refused"
    yield "runs-many", _runs([0] * 10**6), "refused"
    yield "runs-text-cut", _runs("0P"), "refused"
    yield "runs-text-long", _runs("o" * 100_000), "refused"
    yield "runs-text-foreign", _runs("\N{PILE OF POO}"), "refused"
    yield "runs-none", _runs(None), "refused"
    yield "size-text", _runs([0, 40, 2360], ("40", "60")), "refused"
    yield "deep-polygon", _change("annotations", 0, segmentation=json.loads(_nested(DEEP))), "refused"
    yield "deep-id", _change("annotations", 0, id=json.loads(_nested(DEEP))), "refused"
    yield "id-long-text", _change("annotations", 1, id="x" * 10**6, image_id=[]), "refused"
    yield "id-twice", _change("annotations", 1, id=11), "refused"
    yield "image-twice", _change("images", 1, id=1), "refused"
    yield "category-twice", _change("categories", 1, id=3), "refused"
    yield "category-huge", _change("categories", 0, id=HUGE), "refused"
    yield "orphan", _change("annotations", 0, image_id=f"{ESCAPE}\n"), "refused"
    yield "side-huge", _change("images", 0, width=HUGE), "refused"
    yield "side-zero", _change("images", 0, height=0), "refused"
    yield "name-escape", _change("categories", 0, name=f"cat{ESCAPE}"), "refused"
    yield "name-newline", _change("categories", 0, name="cat\nerror: all is lost"), "refused"
    yield "name-surrogate", _change("categories", 0, name="cat\ud800"), "refused"
    yield "name-html", _change("categories", 0, name="<script>alert(1)</script>"), "read"
    yield "name-path", _change("categories", 0, name="../../etc/cat"), "read"
    for name, file in {
        "parent": "../../../secret.png",
        "far-parent": "../../../../../../../../etc/hostname",
        "absolute": "/etc/hostname",
        "backslashes": "..\\..\\secret.png",
        "inside-out": "images/../../secret.png",
        "device": "/dev/zero",
        "nul": "a\0.png",
        "surrogate": "a\udc80\ud800.png",
        "escape": f"{ESCAPE}.png",
        "long": "x/" * 5000,
        "home": "~/secret.png",
    }.items():
        yield f"file-{name}", _change("images", 1, file_name=file), "refused"


def _coco_texts():
    """Invalid JSON files, as bytes."""
    sound = json.dumps(coco())
    yield "empty", b"", "refused"
    yield "spaces", b" \n", "refused"
    yield "cut", sound[:300].encode(), "refused"
    yield "utf-16", sound.encode("utf-16"), "read"
    yield "latin-1", sound.replace("cat", "\xe9").encode("latin-1"), "refused"
    yield "bom", sound.encode("utf-8-sig"), "read"
    yield "nul", sound.encode() + b"\0", "refused"
    yield "nesting-bomb", _nested(100_000).encode(), "refused"
    yield "nesting", ('{"images": ' + _nested(DEEP) + ', "annotations": [], "categories": []}').encode(), "refused"
    yield "number-bomb", b'{"images": [], "annotations": [' + b"9" * 10**6 + b'], "categories": []}', "refused"
    yield "a-list", b"[1, 2, 3]", "refused"
    yield "a-number", b"1e999", "refused"
    yield "lists-of-null", b'{"images": null, "annotations": [], "categories": []}', "refused"
    yield "rows-of-null", b'{"images": [null], "annotations": [null], "categories": [null]}', "refused"
    yield "no-rows", b'{"images": [], "annotations": [], "categories": []}', "refused"
    yield "picture", png(4, 4), "refused"


def _via_regions():
    rect = {"name": "rect", "x": 1, "y": 1, "width": 5, "height": 5}
    yield "sound", [{"shape_attributes": rect, "region_attributes": {}}], "read"
    for name, shape in {
        "rect-1e308": rect | {"x": 1e308, "width": 1e308},
        "rect-text": rect | {"x": "1"},
        "circle-huge": {"name": "circle", "cx": 5, "cy": 5, "r": 1e300},
        "circle-nan": {"name": "circle", "cx": 5, "cy": 5, "r": float("nan")},
        "ellipse-angle": {"name": "ellipse", "cx": 5, "cy": 5, "rx": 3, "ry": 3, "theta": 1e308, "x": HUGE},
        "polygon-lengths": {"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]},
        "polygon-objects": {"name": "polygon", "all_points_x": {"0": 1}, "all_points_y": {"0": 1}},
        "polygon-far": {"name": "polygon", "all_points_x": [1, 1e12, 3], "all_points_y": [1, 2, 9]},
        "point": {"name": "point", "cx": 5, "cy": 5},
        "no-name": {},
        "a-list": [1],
        "nothing": None,
    }.items():
        comes = "read" if name == "ellipse-angle" else "refused"
        yield name, [{"shape_attributes": shape, "region_attributes": {}}], comes
    yield "regions-number", 5, "refused"
    yield "region-null", [None], "refused"


def _labelme_shapes():
    points = [[1, 1], [9, 1], [9, 9]]
    bomb = base64.b64encode(png(20_000, 20_000, 1, 0, zlib.compress(bytes(10**6)))).decode()
    yield "sound", [{"label": "cat", "points": points}], "read"
    for name, shape in {
        "far": {"points": [[1, 1], [1e12, 1], [9, 9]]},
        "nan": {"points": [[1, 1], [float("nan"), 1], [9, 9]]},
        "texts": {"points": [["1", "1"], ["9", "1"], ["9", "9"]]},
        "flat": {"points": [1, 1, 9, 1, 9, 9]},
        "circle-1e308": {"shape_type": "circle", "points": [[-1e308, -1e308], [1e308, 1e308]]},
        "mask-bomb": {"shape_type": "mask", "points": [[0, 0], [5, 5]], "mask": bomb},
        "mask-far": {
            "shape_type": "mask",
            "points": [[1e308, 0], [5, 5]],
            "mask": base64.b64encode(png(1, 1, 8, 0, b"\0\1")).decode(),
        },
        "mask-no-base64": {"shape_type": "mask", "points": [[0, 0], [5, 5]], "mask": "???"},
        "mask-no-png": {"shape_type": "mask", "points": [[0, 0], [5, 5]], "mask": "aGVsbG8="},
        "mask-no-points": {"shape_type": "mask", "points": [], "mask": bomb},
        "label-escape": {"label": ESCAPE, "points": points},
        "label-number": {"label": 5, "points": points},
        "kind-list": {"shape_type": ["polygon"], "points": points},
        "group-deep": {"group_id": json.loads(_nested(DEEP)), "points": points},
    }.items():
        yield name, [{"label": "cat", **shape}], "refused"
    yield "shapes-null", None, "refused"
    yield "shape-null", [None], "refused"


def _mask_pictures():
    rng = np.random.default_rng(0)
    yield "sound", Image.fromarray(np.eye(40, 60, dtype=np.uint8)), "read"
    yield "other-size", Image.new("L", (40, 60)), "refused"
    yield "rgb", Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)), "refused"
    yield "bomb", png(20_000, 20_000, 8, 0), "refused"
    yield "cut", png(60, 40, 8, 0, bytes(5)), "refused"
    yield "text", b"no picture", "refused"
    yield "noise", Image.fromarray(rng.integers(0, 2**16, (40, 60)).astype(np.uint16)), "read"
    yield "noise-large", Image.fromarray(rng.integers(0, 2**16, (400, 600)).astype(np.uint16)), "refused"


def write_cases(folder):
    """Write all files; return (path, format, expected result) by name."""
    write_picture(folder / "secret.png", 30, 50)
    cases = {}

    def add(kind, name, path, comes):
        cases[f"{kind} {name}"] = (path, kind, comes)

    for name, content, comes in _coco_rows():
        add("coco", name, write_coco(folder / "coco" / name, content), comes)
    for name, data, comes in _coco_texts():
        path = write_coco(folder / "text" / name)
        path.write_bytes(data)
        add("coco", f"text-{name}", path, comes)
    for name, regions, comes in _via_regions():
        place = folder / "via" / name
        write_picture(place / "a.png", 40, 60)
        content = {"a": {"filename": "a.png", "regions": regions}}
        add("via", name, write_json(place / "via.json", content), comes)
    for name, shapes, comes in _labelme_shapes():
        place = folder / "labelme" / name
        write_picture(place / "a.png", 40, 60)
        write_json(place / "a.json", {"imagePath": "a.png", "shapes": shapes})
        add("labelme", name, place, comes)
    for name, file in {
        "absolute": "/etc/hostname",
        "far": "../../secret.png",
        "deep": "../../../../etc/passwd",
    }.items():
        place = folder / "labelme-files" / name
        write_json(
            place / "a.json", {"imagePath": file, "shapes": [{"label": "cat", "points": [[1, 1], [9, 1], [9, 9]]}]}
        )
        add("labelme", f"file-{name}", place, "refused")
    for name, mask, comes in _mask_pictures():
        place = folder / "masks" / name
        write_picture(place / "images" / "a.png", *((400, 600) if "large" in name else (40, 60)))
        write_map(place / "masks" / "a.png", np.eye(40, 60, dtype=np.uint8))
        if isinstance(mask, bytes):
            (place / "masks" / "a.png").write_bytes(mask)
        else:
            mask.save(place / "masks" / "a.png")
        add("masks", name, place, comes)
    return cases
