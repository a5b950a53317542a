"""The documents of a run combined: a COCO file, a table, and a list of failures."""

import csv
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TextIO

from maskrcnn.prediction.documents import Row
from maskrcnn.prediction.journal import read_journal
from maskrcnn.prediction.output_folder import FAILURES_FILE, RESULTS_FILE, TABLE_FILE, OutputFolder
from maskrcnn.prediction.settings import RunSettings
from maskrcnn.prediction.sources import Failure, Source
from runtime.atomic import atomic_write
from runtime.json_file import read_json_file
from runtime.masks.rle import area

COLUMNS = ("file", "frame", "class_id", "class", "score", "x1", "y1", "x2", "y2", "area")

_MOST_WAITING = 2**24  # characters of images in memory

# The start of what spreadsheets read as a formula: of the cell, or of a part of it, because some split at other
# separators than commas. Quotation marks and spaces before the sign do not stop them; the wide signs are East Asian.
_FORMULA = re.compile(r'(^|[;,|\t\r\n])(?=["\s]*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])')


@dataclass(frozen=True)
class Totals:
    """Counts over the documents of a run; `pictures` does not include video frames."""

    pictures: int
    frames: int
    detections: int


def write_results(folder: OutputFolder, settings: RunSettings, sources: Iterable[Source]) -> Totals:
    """Write `results.json` and `results.csv` from the documents of the sources, which are read one at a time.

    The JSON is a complete COCO dataset with a `score` per annotation; its annotations are COCO results.
    """
    with (
        atomic_write(folder.path / RESULTS_FILE, overwrite=True) as json_path,
        atomic_write(folder.path / TABLE_FILE, overwrite=True) as csv_path,
        json_path.open("w", encoding="utf-8") as json_file,
        csv_path.open("w", encoding="utf-8", newline="") as csv_file,
    ):
        return write_entries(_entries(folder, sources), settings, json_file, csv_file)


def write_entries(
    entries: Iterable[tuple[str, dict[str, Any]]],
    settings: RunSettings,
    json_file: TextIO | None = None,
    csv_file: TextIO | None = None,
) -> Totals:
    """Write the COCO file, the table or both, from the name and document of each image or frame."""
    with SpooledTemporaryFile(_MOST_WAITING, "w+", encoding="utf-8", newline="") as waiting:
        coco = None if json_file is None else _CocoFile(json_file, waiting)
        table = None if csv_file is None else csv.writer(csv_file)  # ends lines with CR LF, so that it quotes either
        if table is not None:
            table.writerow((*COLUMNS, "track_id") if settings.track else COLUMNS)
        number = count = frames = 0
        for number, (name, entry) in enumerate(entries, 1):
            image, frame = _image(number, name, entry), entry.get("frame")
            if coco is not None:
                coco.add_image(image)
            frames += frame is not None
            for row in entry["detections"]:
                count += 1
                pixels = area(row["mask"])
                if coco is not None:
                    coco.add_annotation(_annotation(count, image["id"], row, pixels))
                if table is not None:
                    where = (_cell(name), "" if frame is None else frame)
                    numbers = (f"{row['score']:.6f}", *row["box"], pixels)
                    track = (row["track_id"],) if settings.track else ()
                    table.writerow((*where, row["class_id"], _cell(row["name"]), *numbers, *track))
        if coco is not None:
            coco.finish(settings)
    return Totals(number - frames, frames, count)


class _CocoFile:
    """Writes a COCO file; its images, which follow all annotations, wait in a temporary one."""

    def __init__(self, file: TextIO, waiting: IO[str]) -> None:
        self._file, self._images = file, waiting
        self._between_images = self._between = ""
        file.write('{"annotations": [')

    def add_image(self, image: dict[str, Any]) -> None:
        self._images.write(self._between_images + json.dumps(image, ensure_ascii=False))
        self._between_images = ",\n"

    def add_annotation(self, annotation: dict[str, Any]) -> None:
        self._file.write(f"{self._between}\n{json.dumps(annotation)}")
        self._between = ","

    def finish(self, settings: RunSettings) -> None:
        self._file.write('\n],\n"images": [\n')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._file)
        categories = [{"id": number, "name": name} for number, name in enumerate(settings.class_names) if number]
        self._file.write(f'\n],\n"categories": {json.dumps(categories, ensure_ascii=False)},\n')
        self._file.write(f'"info": {json.dumps({"settings": settings.to_dict()}, ensure_ascii=False)}}}\n')


def _entries(folder: OutputFolder, sources: Iterable[Source]) -> Iterator[tuple[str, dict[str, Any]]]:
    for source in sources:
        path = folder.document(source)
        if source.is_video:
            for line in read_journal(path):
                yield source.name, line
        else:
            yield source.name, read_json_file(path)


def _image(number: int, name: str, entry: dict[str, Any]) -> dict[str, Any]:
    height, width = entry["image_size"]
    image = {"id": number, "file_name": name, "height": height, "width": width}
    if "device" in entry:  # documents of older versions have none
        image["device"] = entry["device"]
    if "frame" in entry:
        frame = {"video": name, "frame": entry["frame"], "time": entry["time"]}
        image |= {"file_name": f"{name}#frame={entry['frame']}"} | frame
    return image


def _annotation(number: int, image_id: int, row: Row, pixels: int) -> dict[str, Any]:
    x1, y1, x2, y2 = row["box"]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": row["class_id"],
        "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": pixels,
        "iscrowd": 0,
        "score": row["score"],
        "segmentation": row["mask"],
    } | ({"track_id": row["track_id"]} if "track_id" in row else {})


def _cell(text: str) -> str:
    """Return text that no spreadsheet reads as a formula: with an apostrophe in front of each that would be one."""
    return _FORMULA.sub(r"\1'", text)


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write a JSON list of `name`, `path`, `error`, `message`; an empty list if nothing failed."""
    with atomic_write(path / FAILURES_FILE, overwrite=True) as temporary:
        rows = [failure._asdict() for failure in failures]
        temporary.write_text(json.dumps(rows, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
