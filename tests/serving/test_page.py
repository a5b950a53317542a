"""The server's page in a real browser: from a dropped image to its masks, with no complaint and no foreign request."""

import base64
import json
import re
import threading
from io import BytesIO
from itertools import product

import numpy as np
import pytest
import uvicorn
from PIL import Image
from pycocotools import mask as coco

from maskrcnn.serving.app import build_app
from maskrcnn.serving.page import render_page
from runtime import Detections, Predictor
from runtime.masks.rle_string import write_counts
from runtime.output.draw import instance_color
from runtime.pictures.read import read_image

SIZES = [(1400, 900), (420, 860)]
TIMES = "queue;dur=0.5, decode;dur=1.5, engine;dur=20, finish;dur=2"
SENTENCE = (
    "The image of 15 bytes is empty or not an image in a known format (JPEG, PNG, WEBP, BMP, TIFF, GIF, PPM, AVIF)."
)
STATUS = r"Failed to load resource: .*"  # what Chromium itself says of an answer that is no result


@pytest.fixture(scope="module")
def demo_file(pytestconfig):
    return pytestconfig.rootpath / "maskrcnn" / "demo.jpg"


@pytest.fixture(scope="module")
def demo_onnx(pytestconfig):
    return pytestconfig.rootpath / "maskrcnn" / "demo.onnx"


@pytest.fixture(scope="module")
def expected(demo_onnx, demo_file):
    with Predictor(demo_onnx, device="cpu") as predictor:
        return predictor(demo_file)


@pytest.fixture(scope="module")
def address(demo_onnx):
    """Where the demo model is served."""
    server = uvicorn.Server(uvicorn.Config(build_app(demo_onnx), port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def visit(open_page, address):
    return lambda *how: open_page(address, *how)


def drop(page, *files):
    """Drop files, as (name, content), anywhere on the page."""
    held = [[name, base64.b64encode(content).decode()] for name, content in files]
    page.evaluate(
        """(files) => {
          const data = new DataTransfer();
          for (const [name, text] of files)
            data.items.add(new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], name));
          for (const kind of ["dragenter", "dragover", "drop"])
            document.querySelector("main").dispatchEvent(
              new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
        }""",
        held,
    )


def wait(page):
    """Wait for the answer, and until it is drawn."""
    page.evaluate(
        """async () => {
          const until = performance.now() + 20000;
          while (state.request && performance.now() < until) await new Promise((done) => setTimeout(done, 5));
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        }"""
    )


def say(page):
    return page.locator("#status").inner_text()


def shown(page):
    return page.locator("#rows li:not([hidden]) button")


def pixels(page, canvas="picture"):
    """What is drawn: uint8 [H, W, 3]."""
    height, width, text = page.evaluate(
        """(name) => {
          const canvas = document.getElementById(name), copy = new OffscreenCanvas(canvas.width, canvas.height);
          const context = copy.getContext("2d", {willReadFrequently: true});
          context.drawImage(canvas, 0, 0);
          const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
          let text = "";
          for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
          return [canvas.height, canvas.width, btoa(text)];
        }""",
        canvas,
    )
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[:, :, :3]


def answered(page, body, status=200, **headers):
    """Let the page get this answer in place of the server's."""
    body = body if isinstance(body, str) else json.dumps(body)
    page.route("**/predict", lambda route: route.fulfill(status=status, body=body, headers=headers))


def encoded(size=(30, 40), form="PNG", color=(10, 120, 60), **how):
    stream = BytesIO()
    Image.new("RGB", size[::-1], color).save(stream, form, **how)
    return stream.getvalue()


def made(scores, size=(30, 40)):
    """Detections with equal boxes one below the other, and full masks."""
    count = len(scores)
    rows = np.arange(count, dtype=np.float32) * 3
    boxes = np.stack([rows, rows, rows + 10, rows + 8], axis=1)
    return Detections(
        boxes,
        np.float32(scores),
        np.ones(count, np.int32),
        np.ones((count, 28, 28), np.float32),
        size,
        ("background", "thing"),
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_from_a_dropped_image_to_masks(scheme, size, visit, address, demo_file, expected):
    page = visit(size, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    before = read_image(demo_file)
    drop(page, ("demo.jpg", demo_file.read_bytes()))
    wait(page)
    assert re.fullmatch(r"demo\.jpg, 480 x 360: 7 detections in \d+ ms\.", say(page))
    assert page.locator("#rows .name").all_inner_texts() == list(expected.names)
    assert page.locator("#rows .score").all_inner_texts() == [f"{score:.3f}" for score in expected.scores]
    times = dict(zip(*(page.locator(f".times {tag}").all_inner_texts() for tag in ("dt", "dd")), strict=True))
    assert list(times) == ["Queue", "Decode", "Engine", "Finish", "Transfer", "Round trip"]
    assert all(re.fullmatch(r"[\d.]+ ms", time) for time in times.values())
    assert "3 square" not in page.get_attribute("#picture", "aria-label")
    assert page.get_attribute("#picture", "aria-label") == "demo.jpg: 7 detections, 4 square, 2 circle, 1 triangle"
    # Inside a mask that no other covers, the color of the detection is mixed in; outside all masks nothing is changed.
    drawn, covered = pixels(page).astype(int), expected.masks.sum(axis=0)
    inside = [np.logical_and(mask, covered == 1) for mask in expected.masks]
    for row, mask in enumerate(inside):
        mixed = 0.55 * before[mask] + 0.45 * np.array(instance_color(row))
        assert np.median(np.abs(drawn[mask] - mixed)) <= 2
    assert np.abs(drawn - before)[covered == 0].max() <= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color].map("
        "color => color.match(/\\d+/g).slice(0, 3).reduce((sum, value) => sum + Number(value), 0))"
    )
    assert (paper > 600 and ink < 150) if scheme == "light" else (paper < 150 and ink > 600)
    assert page.complaints == []
    assert [url.replace(address, "") for url in page.requests if not url.startswith(("blob:", "data:"))] == [
        "",
        "predict",
    ]


def rle_cases():
    """Masks of all kinds, as COCO encodes them."""
    rng = np.random.default_rng(3)
    sizes = [(1, 1), (1, 5000), (3000, 1), (2, 3), (37, 41), (480, 640), (1200, 900)]
    for size in sizes:
        noise = rng.random(size)
        blocks = np.zeros(size, bool)
        blocks[size[0] // 3 :, size[1] // 4 : size[1] // 4 * 3 + 1] = True
        for mask in (noise < 0.5, noise < 0.01, noise > 2, noise < 2, blocks, ~blocks):
            rle = coco.encode(np.asfortranarray(mask, np.uint8))
            yield {"size": rle["size"], "counts": rle["counts"].decode()}, mask
    shuttle = np.zeros((300, 200), bool)
    shuttle[250:, 10:150] = True  # the runs grow and shrink, so that differences have both signs
    shuttle[np.triu_indices(200)] = True
    rle = coco.encode(np.asfortranarray(shuttle, np.uint8))
    yield {"size": rle["size"], "counts": rle["counts"].decode()}, shuttle


def sampled(page, rle, rows, columns):
    """The mask as the page draws it on a canvas of this size."""
    *place, bits, area = page.evaluate(
        """([rle, rows, columns]) => {
          const edges = decodeRle(rle);
          const found = sampleMask(edges, rle.size, columns, rows);
          let text = "";
          for (let at = 0; at < found.bits.length; at += 8192)
            text += String.fromCharCode(...found.bits.subarray(at, at + 8192));
          return [found.left, found.top, found.width, found.height, btoa(text), areaOf(edges)];
        }""",
        [rle, rows, columns],
    )
    left, top, width, height = map(int, place)
    whole = np.zeros((rows, columns), bool)
    inside = np.frombuffer(base64.b64decode(bits), np.uint8).reshape(height, width)
    whole[top : top + height, left : left + width] = inside
    return whole, area


def test_masks_are_decoded_to_the_pixel(visit, expected):
    page = visit()
    cases = [*rle_cases(), *zip(expected.rles, expected.masks, strict=True)]
    assert max(len(rle["counts"]) for rle, _ in cases) > 100_000
    for rle, mask in cases:
        found, area = sampled(page, rle, *mask.shape)
        assert np.array_equal(found, mask)
        assert area == mask.sum()


def test_a_large_mask_is_sampled_at_the_centers_of_the_pixels_shown(visit):
    page = visit()
    rng = np.random.default_rng(5)
    mask = np.kron(rng.random((60, 80)) < 0.5, np.ones((20, 15), bool))
    mask ^= rng.random(mask.shape) < 0.1
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    for canvas in ((1, 1), (7, 5), (160, 213), (899, 1200), (1199, 900), (1200, 1), (16, 1200)):
        found, _ = sampled(page, {"size": rle["size"], "counts": rle["counts"].decode()}, *canvas)
        centers = [(2 * np.arange(n) + 1) * side // (2 * n) for n, side in zip(canvas, mask.shape, strict=True)]
        assert np.array_equal(found, mask[np.ix_(*centers)]), canvas


def test_runs_longer_than_31_bits(visit):
    page = visit()
    counts = [2**31 + 5, 2**32 - 9, 2**33, 7, 2**31 - 1]
    rle = {"size": [1, sum(counts)], "counts": write_counts(counts)}
    assert page.evaluate("(rle) => decodeRle(rle)", rle) == np.cumsum(counts)[:4].tolist()


def test_a_damaged_mask_is_refused(visit):
    page = visit()
    one = {"class_id": 1, "name": "thing", "score": 0.9, "box": [0, 0, 1, 1]}
    for counts in ("", "0", "1", "P", "~1", "\u00e9", "11N1", "o"):
        one["mask"] = {"size": [2, 2], "counts": counts}
        answered(page, {"image_size": [2, 2], "device": "cpu", "detections": [one]})
        drop(page, ("a.png", encoded()))
        wait(page)
        assert say(page).startswith("The answer of the server cannot be shown: "), counts
        assert page.locator(".side").is_hidden()
    assert page.complaints == []


def test_colors_are_those_of_drawn_images(visit):
    page = visit()
    assert page.evaluate("Array.from({length: 300}, (_, row) => instanceColor(row))") == [
        list(instance_color(row)) for row in range(300)
    ]


def test_images_are_turned_as_the_model_sees_them(visit):
    page = visit()
    drawing = np.zeros((40, 56, 3), np.uint8)
    drawing[:20, :28], drawing[:20, 28:], drawing[20:, :28] = (255, 255, 255), (250, 0, 0), (0, 0, 250)
    for form, orientation in product(("JPEG", "PNG", "WEBP", "BMP"), range(1, 9)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stream = BytesIO()
        how = {} if form == "BMP" else {"exif": exif, "quality": 95, "lossless": True}
        Image.fromarray(drawing).save(stream, form, **how)
        size = page.evaluate(
            """async (text) => {
              const file = new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], "a");
              state.image = await openImage(file);
              setSize([state.image.height, state.image.width]);
              return state.size;
            }""",
            base64.b64encode(stream.getvalue()).decode(),
        )
        wanted = read_image(stream.getvalue())
        assert tuple(size) == wanted.shape[:2], (form, orientation)
        assert np.abs(pixels(page).astype(int) - wanted).mean() < 2, (form, orientation)
    assert page.complaints == []


def test_the_slider_filters_at_once_and_asks_nothing(visit):
    page = visit()
    answered(page, made([0.95, 0.7, 0.55]).to_json(), **{"Server-Timing": TIMES})
    drop(page, ("a.png", encoded()))
    wait(page)
    asked, all_masks = len(page.requests), pixels(page)
    assert page.locator("#floor").inner_text() == "The server returns nothing below 0.50."
    slider = page.get_by_label("Score at least")
    slider.fill("0.7")  # as float32, which the server sends, 0.7 is a little less than 0.7
    wait(page)
    assert (page.locator(".count").inner_text(), shown(page).count()) == ("2 of 3 shown", 2)
    assert not np.array_equal(pixels(page), all_masks)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#score-value").inner_text() == "0.71"
    assert shown(page).count() == 1
    slider.fill("1")
    wait(page)
    assert page.locator("#none").inner_text() == "All scores are below the threshold."
    assert (pixels(page) == (10, 120, 60)).all()
    slider.fill("0.5")
    wait(page)
    assert np.array_equal(pixels(page), all_masks)
    assert len(page.requests) == asked
    assert page.complaints == []


def test_masks_boxes_and_labels_are_switched_off(visit):
    page = visit()
    answered(page, made([0.9, 0.8]).to_json())
    drop(page, ("a.png", encoded()))
    wait(page)
    everything = pixels(page, "marks")
    page.get_by_label("Masks").uncheck()
    wait(page)
    assert (pixels(page) == (10, 120, 60)).all()
    page.get_by_label("Labels").uncheck()
    wait(page)
    boxes = pixels(page, "marks")
    assert boxes.any()
    assert not np.array_equal(boxes, everything)
    page.get_by_label("Boxes").uncheck()
    wait(page)
    assert not pixels(page, "marks").any()


def test_with_the_keyboard_alone(visit, demo_file):
    page = visit()
    page.on("filechooser", lambda choice: choice.set_files(demo_file))  # asked for early: it takes effect later
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    style = "(each) => getComputedStyle(each).outlineStyle"
    assert page.locator(".button.first").evaluate(style) == "solid"  # the focus is visible
    page.keyboard.press("Enter")
    page.wait_for_selector("#rows button")
    wait(page)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.parentNode.parentNode.id"))
        assert page.locator(":focus").evaluate(style) in ("solid", "auto")
    assert reached == ["save", "score", "masks", "boxes", "labels", "rows"]
    plain = pixels(page)
    lit = page.locator("#rows button.lit")
    assert lit.locator(".name").inner_text() == "square"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert (lit.count(), lit.locator(".name").inner_text()) == (1, "circle")
    page.keyboard.press("Enter")
    page.keyboard.press("Home")
    assert page.locator("#rows [aria-pressed=true] .name").inner_text() == "circle"
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")  # the last has no next one
    assert page.locator("#rows button").last.evaluate("(each) => each === document.activeElement")
    wait(page)
    assert not np.array_equal(pixels(page), plain)
    page.keyboard.press("Escape")
    assert page.locator("#rows [aria-pressed=true]").count() == 0
    assert page.complaints == []


def test_pointing_at_a_row_or_at_a_mask(visit):
    page = visit()
    answered(page, made([0.9, 0.8, 0.7]).to_json())
    drop(page, ("a.png", encoded()))
    wait(page)
    plain, lit = pixels(page), page.locator("#rows button.lit")
    shown(page).nth(1).hover()
    wait(page)
    assert lit.locator(".score").inner_text() == "0.800"
    assert not np.array_equal(pixels(page), plain)
    page.mouse.move(1, 1)
    wait(page)
    assert lit.count() == 0
    assert np.array_equal(pixels(page), plain)
    box = page.locator(".view").bounding_box()
    page.mouse.move(box["x"] + 15.5 / 40 * box["width"], box["y"] + 13.5 / 30 * box["height"])
    assert lit.locator(".score").inner_text() == "0.700"  # of the three, only its mask has this pixel
    page.mouse.move(box["x"] + 35 / 40 * box["width"], box["y"] + 2 / 30 * box["height"])
    assert lit.count() == 0
    shown(page).nth(2).click()
    page.mouse.move(1, 1)
    page.evaluate("document.activeElement.blur()")
    assert lit.locator(".score").inner_text() == "0.700"
    page.get_by_label("Score at least").fill("0.75")
    assert lit.count() == 0 or not lit.is_visible()
    assert page.complaints == []


def test_the_sentence_of_the_server_is_shown_and_the_image_can_be_sent_again(visit, demo_file):
    page = visit()
    drop(page, ("notes.txt", b"no image at all"))
    wait(page)
    assert say(page) == SENTENCE
    assert page.locator("#status").evaluate("(each) => [each.role, each.ariaLive, each.className]") == [
        "status",
        "polite",
        "bad",
    ]
    assert page.get_by_role("button", name="Download JSON").is_hidden()
    body = '{"error": "64 images wait, and 64 may: try again later"}'
    answered(page, body, 503, **{"Retry-After": "3"})
    drop(page, ("demo.jpg", demo_file.read_bytes()))
    wait(page)
    assert say(page) == "64 images wait, and 64 may: try again later. The server asks to wait 3 seconds."
    page.unroute("**/predict")
    page.get_by_role("button", name="Send again").click()
    wait(page)
    assert "7 detections" in say(page)
    assert not page.get_by_role("button", name="Send again").is_visible()
    assert [text for text in page.complaints if not re.fullmatch(STATUS, text)] == []


ANSWERS = [
    ("<html><h1>Bad Gateway</h1></html>", 502, "The server answered 502 Bad Gateway."),
    ("", 504, "The server answered 504 Gateway Timeout."),
    ("too many cooks", 500, "Too many cooks."),
    ('{"error": {"code": 7}}', 500, "The server answered 500 Internal Server Error."),
    ("no JSON", 200, "The answer of the server cannot be shown: "),
    ("{}", 200, "The answer of the server cannot be shown: "),
    (None, None, "The server does not answer. Is it still running?"),
]


def test_answers_that_are_no_result(visit):
    page = visit()
    for body, status, expected in ANSWERS:
        if status is None:
            page.route("**/predict", lambda route: route.abort())
        else:
            answered(page, body, status)
        drop(page, ("a.png", encoded()))
        wait(page)
        assert say(page).startswith(expected)
        assert page.locator(".side").is_hidden()
        assert page.locator(".view").is_visible()  # the image itself stays
    assert [text for text in page.complaints if not re.fullmatch(STATUS, text)] == []


def test_a_file_that_is_too_large_is_not_sent(visit):
    page = visit()
    page.evaluate("facts.max_body = 1000")
    drop(page, ("big.bmp", encoded(form="BMP")))
    wait(page)
    assert say(page) == "big.bmp has 4 kB; this server accepts at most 1 kB."
    assert not any(url.endswith("predict") for url in page.requests)


@pytest.mark.parametrize("busy", ["decode", "draw"])
def test_the_times_do_not_have_those_of_the_browser(visit, demo_file, busy):
    """It decodes and draws the image while the server works."""
    page = visit()
    page.evaluate(
        """(busy) => {
          const kind = busy === "decode" ? HTMLImageElement.prototype : CanvasRenderingContext2D.prototype;
          const name = busy === "decode" ? "decode" : "drawImage", before = kind[name];
          let first = true;
          kind[name] = function (...given) {
            if (busy === "decode") return new Promise((done) => setTimeout(done, 3000)).then(() => before.call(this));
            const until = performance.now() + (first ? 3000 : 0);
            first = false;
            while (performance.now() < until);
            return before.apply(this, given);
          };
        }""",
        busy,
    )
    drop(page, ("demo.jpg", demo_file.read_bytes()))
    wait(page)
    assert float(page.locator(".times .total dd").inner_text().removesuffix(" ms")) < 3000
    assert float(page.locator(".times .rest dd").inner_text().removesuffix(" ms")) < 1000


@pytest.mark.parametrize("error", ["NotFoundError", "NotReadableError"])
def test_what_cannot_be_read_is_said_and_not_sent(visit, error):
    """A folder that is dropped looks like a file."""
    page = visit()
    page.evaluate(
        """(error) => {
          window.fetch = () => { throw new Error("sent"); };
          const file = new File(["x"], "holiday");
          for (const name of ["arrayBuffer", "slice"]) file[name] = () => Promise.reject(new DOMException("", error));
          take([file]);
        }""",
        error,
    )
    wait(page)
    assert say(page).startswith("holiday cannot be read. Is it a folder, or has it been moved or deleted?")
    assert page.complaints == []


def test_only_the_last_of_several_images_is_shown(visit):
    page, ended, held = visit(), [], []
    page.on("requestfailed", lambda request: ended.append(request.failure))
    page.route("**/predict", lambda route: held.append(route))  # noqa: PLW0108  (a method takes no attribute)
    drop(page, ("first.png", encoded()))
    for _ in range(2000):
        if not held:  # which has no answer; else the next route would answer it
            page.wait_for_timeout(5)
    answered(page, made([0.9]).to_json())
    with page.expect_event("requestfailed"):
        drop(page, ("second.png", encoded()), ("third.png", encoded()))
    wait(page)
    assert say(page).startswith("second.png, ")
    assert say(page).endswith("Of several files only the first was sent.")
    assert ended == ["net::ERR_ABORTED"]  # so that the server need not finish it
    drop(page)
    assert say(page) == "That was no file. Drop or paste an image file."


@pytest.mark.parametrize(("form", "size"), [("TIFF", (30, 40)), ("PNG", (40, 30))])
def test_an_image_that_the_browser_does_not_show_as_the_server_sees_it(visit, form, size):
    page = visit()
    answered(page, made([0.9]).to_json())
    drop(page, ("a." + form.lower(), encoded(size, form)))
    wait(page)
    assert say(page).endswith("so the masks are on gray.")
    drawn = pixels(page)
    assert drawn.shape[:2] == (30, 40)
    assert (drawn[29, 39] == 128).all()
    assert not (drawn[4, 5] == 128).all()


def test_pasting_an_image(visit):
    page = visit()
    answered(page, made([]).to_json())
    page.evaluate(
        """(text) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(atob(text), (each) => each.charCodeAt(0))], "pasted.png"));
          document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }""",
        base64.b64encode(encoded()).decode(),
    )
    wait(page)
    assert say(page).startswith("pasted.png, 40 x 30: 0 detections in ")
    assert page.locator("#none").inner_text() == "The model found nothing in this image."


def test_a_large_image_is_scaled_for_display(visit):
    page = visit(SIZES[1])
    answered(page, made([0.9], (2400, 3200)).to_json())
    drop(page, ("large.jpg", encoded((2400, 3200), "JPEG")))
    wait(page)
    assert pixels(page).shape[:2] == (1200, 1600)
    assert page.locator(".view").bounding_box()["width"] <= SIZES[1][0]
    assert "10 x 8 at 0, 0 · 80 pixels" in shown(page).inner_text()
    assert page.complaints == []


def test_the_json_is_downloaded_as_the_server_sent_it(visit, demo_file, expected):
    page = visit()
    drop(page, ("demo.photo.jpg", demo_file.read_bytes()))
    wait(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    assert download.value.suggested_filename == "demo.photo.json"
    assert json.loads(download.value.path().read_text(encoding="utf-8")) == json.loads(expected.to_json())
    assert page.complaints == []


def test_the_policy_refuses_what_is_not_the_page_itself(visit, address):
    page = visit()
    policy = page.evaluate("fetch('').then((answer) => answer.headers.get('Content-Security-Policy'))")
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    for attack in (
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hit = 1\">')",
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 1'}))",
        "document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.2/a.png'}))",
        "fetch('http://127.0.0.2/').catch(() => 0)",
    ):
        page.evaluate(f"(() => {{ try {{ {attack} }} catch {{ }} }})()")
    page.wait_for_timeout(50)
    assert page.evaluate("window.hit") is None
    assert not any("127.0.0.2" in url for url in page.requests if not page.complaints)
    assert len(page.complaints) >= 4


def test_names_cannot_become_markup(open_page, tmp_path):
    evil = "</script><script>window.hit = 1</script><!--"
    facts = {"model": evil, "device": "cpu", "classes": [evil, "b"], "score_threshold": 0.125, "max_body": 9}
    (tmp_path / "page.html").write_text(render_page(facts), encoding="utf-8")
    page = open_page((tmp_path / "page.html").as_uri())
    assert page.locator("h1").inner_text() == evil
    assert page.locator(".facts li").first.inner_text() == f"{evil}, b"
    assert page.locator("#floor").inner_text() == "The server returns nothing below 0.125."
    assert page.locator("#score-value").inner_text() == "0.125"
    assert page.evaluate("window.hit") is None
    assert page.complaints == []
