"""The page in a real browser: no errors, nothing loaded, and all controls work."""

import json
from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.inspection.charts import bar_chart, curve_chart, distribution_chart, histogram_grid, to_svg
from maskrcnn.inspection.html import render
from maskrcnn.inspection.page_model import Charts, Section, Table
from runtime.output.draw import instance_color

SIZES = [(1400, 900), (420, 860)]
# Texts in SVG that lie outside their image or chart, or on each other.
SVG_TEXTS = """() => [...document.querySelectorAll('main svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect(), found = [];
  const texts = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
    .filter(([, box]) => box.width > 0);
  texts.forEach(([text, a], row) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1)
      found.push('cut: ' + text);
    texts.slice(row + 1).forEach(([other, b]) => {
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
        found.push(text + ' | ' + other);
    });
  });
  return found;
})"""


@pytest.fixture
def visit(open_page):
    return lambda folder, *how: open_page((folder / "index.html").as_uri(), *how)


def number(page, selector):
    return int(page.locator(selector).first.inner_text())


def move(page, name, value):
    """Move a slider as a user does: the value changes and an event is sent."""
    slider = page.locator(f'[data-slider="{name}"]').first
    slider.evaluate(
        "(each, value) => { each.value = value; each.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("folder", ["report_folder", "crowded_folder", "empty_folder", "data_folder"])
def test_no_complaint_no_request_no_overflow(folder, size, scheme, visit, request):
    page = visit(request.getfixturevalue(folder), size, scheme)
    assert page.complaints == []
    outside = [url for url in page.requests if not url.startswith("data:")]
    assert [url.split("/")[0] for url in outside] == ["file:"]  # the page itself
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color].map("
        "color => color.match(/\\d+/g).slice(0, 3).reduce((sum, value) => sum + Number(value), 0))"
    )
    assert (paper > 600 and ink < 150) if scheme == "light" else (paper < 150 and ink > 600)


@pytest.mark.parametrize("folder", ["report_folder", "crowded_folder", "artifact_folder", "data_folder"])
@pytest.mark.parametrize("size", SIZES)
def test_no_text_is_cut_or_covered(folder, size, visit, request):
    """No heading, number, caption, button, label or text of a chart is cut off or covered by another."""
    page = visit(request.getfixturevalue(folder), size)
    page.wait_for_timeout(100)  # labels and charts are fitted once they have a size
    assert page.locator("main svg text").count() > 20
    assert page.evaluate(SVG_TEXTS) == []
    cut = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, p, dt, dd, figcaption, button, summary, th')]"
        ".filter(each => each.offsetParent && each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display"
        " !== 'inline').map(each => each.textContent.trim())"
    )
    assert cut == []
    covered = page.evaluate(
        """() => {
          const boxes = [...document.querySelectorAll('dl > div, figcaption, h4, .thumb, button, select')]
            .filter(each => each.offsetParent && !each.closest('.bar'))
            .map(each => [each, each.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
          const over = [];
          boxes.forEach(([first, a], row) => boxes.slice(row + 1).forEach(([second, b]) => {
            if (first.contains(second) || second.contains(first)) return;
            if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
              over.push(first.textContent.trim().slice(0, 40) + ' | ' + second.textContent.trim().slice(0, 40));
          }));
          return over;
        }"""
    )
    assert covered == []


# Resolves when the page has stopped scrolling.
STILL = """() => new Promise(done => {
  let last = -1, frames = 0
  const look = () => {
    frames = scrollY === last ? frames + 1 : 0
    last = scrollY
    frames > 10 ? done() : requestAnimationFrame(look)
  }
  look()
})"""


@pytest.mark.parametrize("size", [*SIZES, (1900, 1000)])
def test_the_navigation_stays_and_says_where_it_is(size, visit, crowded_folder):
    page = visit(crowded_folder, size)
    titles = page.locator("main > section > h2").all_inner_texts()
    assert titles[:3] == ["Summary", "Result", "1 Anchors"]
    assert page.locator("nav a").all_inner_texts() == titles
    assert page.locator("nav [aria-current]").inner_text() == "Summary"
    for key, title in (("masks", "3 Masks"), ("result", "Result"), ("data", "Data")):
        page.locator(f'nav a[href="#{key}"]').click()
        page.wait_for_function("title => document.querySelector('nav [aria-current]').textContent === title", arg=title)
        page.evaluate(STILL)
        bar, heading, link = (
            page.locator(each).bounding_box() for each in (".bar", f"#{key} h2", "nav [aria-current]")
        )
        assert 0 <= bar["y"] < 1  # it is still there
        assert bar["y"] <= link["y"] < link["y"] + link["height"] <= size[1]
        assert bar["x"] <= link["x"] < link["x"] + link["width"] <= bar["x"] + bar["width"]
        beside = bar["x"] + bar["width"] <= heading["x"]
        assert beside if size[0] > 1000 else bar["y"] + bar["height"] <= heading["y"]
        assert bar["height"] <= 64 or beside
    assert page.locator("#picture-choice").is_visible()
    assert page.locator("#theme").is_visible()
    content = page.locator("main").bounding_box()  # the width is used
    assert content["width"] > 0.8 * size[0]
    for selector in ("#result .result-view", "#anchors .thumbs", ".mosaics", ".strips", "#weights .chart-row"):
        ends = page.locator(selector).first.evaluate(
            "each => [...each.children].map(child => child.getBoundingClientRect().right)"
        )
        assert max(ends) > content["x"] + 0.95 * content["width"], selector


def test_each_object_has_its_color_class_and_score_in_the_image(visit, report_folder, detect_at):
    page = visit(report_folder)
    expected = [f"{name} {score:.2f}" for name, score in zip(detect_at().names, detect_at().scores, strict=True)]
    scene = page.locator(".result-view svg")
    assert scene.locator(".labels text").all_text_contents() == expected
    colors = ["#{:02x}{:02x}{:02x}".format(*instance_color(row)) for row in range(len(expected))]
    rows = scene.locator("g[data-row]:not(.off)").evaluate_all(
        "rows => rows.sort((a, b) => a.dataset.row - b.dataset.row)"
        ".map(row => row.querySelector('rect').getAttribute('stroke'))"
    )
    tags = scene.locator(".labels rect").evaluate_all("tags => tags.map(tag => tag.getAttribute('fill'))")
    assert rows == tags == colors
    move(page, "score", "0.99")
    assert 0 < scene.locator(".labels text").count() == number(page, '[data-count="final"]') < len(expected)
    page.locator("#result .thumb").first.click()
    assert page.locator("dialog .labels text").count() > 0
    phone = visit(report_folder, SIZES[1])
    assert phone.locator(".result-view .labels text").all_text_contents() == expected


def test_labels_leave_a_crowd_visible(visit, crowded_folder):
    page = visit(crowded_folder)
    share = page.locator(".result-view svg").first.evaluate(
        "svg => [...svg.querySelectorAll('.labels rect')].reduce((sum, tag) => sum + tag.width.baseVal.value *"
        " tag.height.baseVal.value, 0) / (svg.viewBox.baseVal.width * svg.viewBox.baseVal.height)"
    )
    assert 0.05 < share <= 0.12


def test_the_summary_leads_to_what_it_names(visit, crowded_folder):
    page = visit(crowded_folder)
    rows = page.locator("#summary tbody tr")
    assert rows.count() == 2
    rows.nth(1).locator("a").click()
    assert page.locator('#result .of-picture[data-picture="1"]').is_visible()
    assert page.locator("#picture-choice").input_value() == "1"
    page.get_by_role("link", name="100 wrong detections").click()
    assert page.locator('#result .of-picture[data-picture="0"]').is_visible()
    assert page.evaluate("location.hash") == "#result"


def test_charts_with_any_names_are_whole(visit, tmp_path):
    """Letters wider than those of matplotlib's font, long names, and many curves."""
    names = ("三角形" * 9, "W" * 60, "a name of a class that is too long for a chart", "\U0001f600" * 20)
    counts = {f"{number} {name}"[: 10 + number]: number + 1.5 for number, name in enumerate(names * 9)}
    history = [{f"{name}_loss": each + 0.1 for each, name in enumerate(names * 3)} for _ in range(12)]
    drawn = [
        bar_chart(counts, "A title that is much longer than the axes are wide, of " + "a_file_name" * 3, "objects"),
        curve_chart({f"val_{name}": [1.0] for name in history[0]}, "Loss", "loss"),
        distribution_chart(np.array([123456, 123457]), "Sizes", "pixels"),
        histogram_grid({name: np.linspace(-1e-5, 1e-5, 50, dtype=np.float32) for name in names}),
    ]
    section = Section("charts", "Charts", "", [Charts("Charts", "", [to_svg(each) for each in drawn])])
    (tmp_path / "index.html").write_text(render("Charts", [], [], [section]), encoding="utf-8")
    for size in SIZES:
        page = visit(tmp_path, size)
        page.wait_for_timeout(100)
        assert page.evaluate(SVG_TEXTS) == []


def test_the_sliders_give_what_the_network_gives(visit, report_folder, detect_at):
    page = visit(report_folder)
    for score, nms in ((0.0, 0.5), (0.5, 1.0), (0.0, 1.0), (0.99, 0.5), (0.3, 0.05), (1.0, 0.5), (0.98, 0.9)):
        move(page, "score", str(score))
        move(page, "nms", str(nms))
        found = detect_at(score, nms)
        assert number(page, '[data-count="final"]') == len(found), (score, nms)
        assert number(page, '[data-figure="final.final"]') == len(found)
        assert page.locator(".result-view tr[data-row]:not(.off)").count() == len(found)
        assert page.locator(".result-view g[data-row]:not(.off)").count() == len(found)
        rows = page.locator(".result-view tr[data-row]:not(.off) td:nth-child(2)").all_inner_texts()
        assert rows == list(found.names)
    page.get_by_role("button", name="Reset to the model's thresholds").click()
    assert number(page, '[data-count="final"]') == len(detect_at())
    assert page.complaints == []


def test_the_sliders_work_with_100_detections(visit, crowded_folder):
    page = visit(crowded_folder)
    assert number(page, '[data-count="final"]') == 100
    move(page, "nms", "0.3")
    fewer = number(page, '[data-count="final"]')
    assert 0 < fewer < 100
    move(page, "score", "1")
    assert number(page, '[data-count="final"]') <= fewer


def test_sliders_and_thumbnails_with_the_keyboard_alone(visit, report_folder):
    page = visit(report_folder)
    slider = page.locator('[data-slider="score"]')
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator('[data-value="score"]').inner_text() == "0.51"
    thumbs = page.locator("#anchors .thumb")
    reached = set()
    page.locator("nav a").first.focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + (document.activeElement.dataset.title || '')"))
    assert {"A", "BUTTON", "DIVPositive anchors"} <= reached
    page.locator(".thumb").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".large-title").inner_text() == "Result"
    page.keyboard.press("ArrowLeft")  # the first has no predecessor
    assert page.locator(".large-title").inner_text() == "Result"
    page.keyboard.press("Escape")
    thumbs.first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    assert page.locator(".large-title").inner_text() == "Positive anchors"
    page.keyboard.press("ArrowRight")
    assert page.locator(".large-title").inner_text() == "Negative anchors"
    page.keyboard.press("ArrowLeft")
    assert page.locator(".large-title").inner_text() == "Positive anchors"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    assert page.evaluate("document.activeElement.dataset.title") == "Positive anchors"


@pytest.mark.parametrize("size", SIZES)
def test_enlarging(size, visit, report_folder):
    page = visit(report_folder, size)
    thumb = page.locator("#anchors .thumb").nth(3)
    before = thumb.locator("svg").bounding_box()
    thumb.click()
    large, place = (page.locator(each).bounding_box() for each in ("dialog svg", "dialog .large-body"))
    assert large["width"] > 1.5 * before["width"]
    assert 0 <= place["x"] < place["x"] + place["width"] <= size[0]  # on a small screen it is scrolled in its place
    assert place["y"] + place["height"] <= size[1]
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog").is_visible()
    page.locator(".mosaics .thumb").first.click()
    assert page.locator("dialog img").is_visible()
    page.keyboard.press("Escape")
    page.locator(".chart-row .thumb").first.click()
    assert page.locator("dialog svg").bounding_box()["width"] > 250
    assert page.complaints == []


def test_hovering_a_box_tells_its_score_class_level_and_overlap(visit, report_folder):
    page = visit(report_folder)
    box = page.locator(".result-view g[data-row]:not(.off) rect").last
    box.scroll_into_view_if_needed()
    box.hover()
    text = page.locator("#tip").inner_text()
    assert [line.split(":")[0] for line in text.splitlines()] == ["class", "score", "level", "IoU"]
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()
    page.locator("#result .thumb").first.click()
    page.locator("dialog g[data-row]:not(.off) rect").last.hover()
    assert page.locator("#tip").is_visible()


def test_classes_are_switched_on_and_off(visit, report_folder):
    page = visit(report_folder)
    figure = page.locator("#refinement figure", has_text="Proposals and refined boxes")
    circles = figure.locator('g[data-group="circle"]')
    assert circles.count() > 0
    assert circles.first.is_visible()
    figure.get_by_label("circle").uncheck()
    assert not any(each.is_visible() for each in circles.all())
    assert figure.locator('g[data-group="square"]').first.is_visible()
    figure.get_by_label("circle").check()
    assert circles.first.is_visible()


def test_an_object_is_switched_off_with_its_proposal(visit, report_folder):
    """The refinement of the detections has a color per object: its dotted and its solid box go together."""
    figure = visit(report_folder).locator("#refinement figure", has_text="Refinement of the detections")
    boxes, choice = figure.locator("g[data-group] rect"), figure.get_by_role("checkbox")
    assert (boxes.count(), choice.count()) == (14, 7)
    strokes = [each.get_attribute("stroke") for each in boxes.all()]
    assert sorted(strokes.count(color) for color in set(strokes)) == [2] * 7
    assert figure.locator("rect.dotted").count() == 7
    choice.first.uncheck()
    assert sum(each.is_visible() for each in boxes.all()) == 12


def test_samples_of_a_dataset_one_at_a_time(visit, data_folder):
    """Without a model, the choice of an image changes the samples, and a mini mask can be enlarged."""
    page = visit(data_folder)
    assert page.locator("nav a").all_inner_texts() == ["1 Dataset", "2 Images", "3 Objects", "4 Samples"]
    masks = page.locator("#samples .of-picture .mosaics img")
    assert [each.is_visible() for each in masks.all()] == [True] * 2 + [False] * 4
    page.locator("#picture-choice").select_option("1")
    assert [each.is_visible() for each in masks.all()] == [False] * 2 + [True] * 3 + [False]
    masks.nth(2).click()
    assert page.locator("dialog img").bounding_box()["width"] >= 512
    assert "IoU" in page.locator(".large-caption").inner_text()
    assert page.complaints == []


def test_one_picture_at_a_time_and_both_on_paper(visit, crowded_folder):
    page = visit(crowded_folder)
    first, second = (page.locator(f'#result .of-picture[data-picture="{number}"]') for number in (0, 1))
    assert (first.is_visible(), second.is_visible()) == (True, False)
    page.locator("#picture-choice").select_option("1")
    assert (first.is_visible(), second.is_visible()) == (False, True)
    page.emulate_media(media="print")
    assert (first.is_visible(), second.is_visible()) == (True, True)
    assert not page.locator(".bar").is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_light_and_dark_by_the_button(visit, report_folder):
    page = visit(report_folder)
    color = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(color)
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate(color)
    page.get_by_role("button", name="Switch between light and dark").click()
    assert light == page.evaluate(color) != dark


def test_without_scripts_the_result_is_still_there(browser, report_folder):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((report_folder / "index.html").as_uri())
    assert page.locator(".result-view g[data-row]:not(.off)").count() == 7
    assert page.locator(".result-view g[data-row]:not(.off) rect").first.is_visible()
    context.close()


@pytest.mark.parametrize(
    ("boxes", "scores", "options", "at", "expected"),
    [
        ([[0, 0, 1, 1]], [0.7], {}, (0.7, 0.5), 1),  # 0.7 as float32 is smaller than 0.7
        ([[0, 0, 1, 1]], [0.7], {"above": True}, (0.7, 0.5), 0),
        ([[0, 0, 1, 1], [0, 0, 0.5, 1]], [0.9, 0.8], {}, (0, 0.5), 2),  # an IoU equal to the threshold
        ([[0, 0, 1, 1], [0, 0, 0.5, 1]], [0.9, 0.8], {}, (0, 0.49), 1),
        ([[0, 0, 1, 1], [0.2, 0.2, 0.2, 0.9]], [0.9, 0.8], {}, (0, 0), 2),  # no area: not suppressed
        ([[0, 0, 1, 1], [0.2, 0.2, 0.2, 0.9]], [0.9, 0.8], {"dropEmpty": True}, (0, 0), 1),
        ([[0, 0, 1, 1], [0, 0, 0.5, 1]], [0.9, 0.8], {"hasArea": [True, False]}, (0, 1), 1),
        ([[0, 0, 1, 1], [0, 0, 0.5, 1]], [0.9, 0.8], {"max": 1}, (0, 1), 1),
        ([[0, 0, 1, 1], [0, 0, 1, 1]], [0.9, 0.8], {"classes": [1, 2]}, (0, 0.1), 2),
    ],
)
def test_the_last_step_at_its_edges(boxes, scores, options, at, expected, visit, report_folder, tmp_path):
    """The page's own filter on hand-made boxes, inserted before the script runs."""
    count = len(scores)
    data = {"boxes": boxes, "scores": [float(np.float32(score)) for score in scores], "classes": [1] * count}
    data |= {
        "hasArea": [True] * count,
        "dropEmpty": False,
        "above": False,
        "max": 100,
        "score": 0.5,
        "nms": 0.5,
        **options,
    }
    text = (report_folder / "index.html").read_text(encoding="utf-8")
    begin = text.index('<script type="application/json">') + len('<script type="application/json">')
    end = text.index("</script>", begin)
    changed = tmp_path / "edges"
    changed.mkdir(exist_ok=True)
    (changed / "index.html").write_text(text[:begin] + json.dumps(data) + text[end:], encoding="utf-8")
    page = visit(changed)
    move(page, "score", str(at[0]))
    move(page, "nms", str(at[1]))
    assert number(page, '[data-count="final"]') == expected


def test_a_threshold_between_two_steps_of_a_slider_is_kept(visit, report_folder, tmp_path):
    text = (report_folder / "index.html").read_text(encoding="utf-8")
    changed = tmp_path / "between"
    changed.mkdir(exist_ok=True)
    (changed / "index.html").write_text(text.replace('"score":0.5,', '"score":0.9765,'), encoding="utf-8")
    page = visit(changed)
    move(page, "nms", "0.6")
    assert page.locator('[data-value="score"]').first.inner_text() == "0.9765"


def test_tables_open_for_print_and_the_tip_is_on_top(visit, report_folder):
    page = visit(report_folder)
    assert not page.locator("#weights details").evaluate("each => each.open")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#weights details").evaluate("each => each.open")
    page.locator("#result .thumb").first.click()
    page.locator("dialog g[data-row]:not(.off) rect").last.hover()
    assert page.locator("#tip").evaluate("each => each.parentNode.id") == "large"  # a dialog hides what is outside
    box = page.locator("#tip").bounding_box()
    assert box["y"] + box["height"] <= SIZES[0][1]


def test_a_table_has_the_room_that_it_needs(open_page, tmp_path):
    """Beside others where it fits, else in a row of its own: at any width, for each image, and once it is opened."""
    names = [f"{number} triangle" for number in range(1, 7)]
    wide = Table("Wide", ["detection", *names], [[name, *["0.00"] * 6] for name in names])
    small = Table("Small", ["class", "boxes"], [["square", "3"]])
    section = Section("result", "Result", "", of_picture={0: [small, wide], 1: [replace(wide, folded=True), small]})
    (tmp_path / "page.html").write_text(render("x", [], ["a", "b"], [section]), encoding="utf-8")
    page = open_page((tmp_path / "page.html").as_uri())

    def settled(*, beside):
        """Wait until no shown table is cut, and the one is or is not beside the other."""
        page.wait_for_function(
            """beside => {
              const blocks = [...document.querySelectorAll('.chosen .block')];
              const boxes = blocks.map(block => block.querySelector('.scroll'))
                .filter(box => !box.closest('details:not([open])'));
              const tops = new Set(blocks.map(block => block.getBoundingClientRect().top));
              return boxes.every(box => box.scrollWidth <= box.clientWidth) && (tops.size === 1) === beside;
            }""",
            arg=beside,
            timeout=5000,
        )

    settled(beside=False)
    for width, beside in ((1600, True), (1800, False), (1000, False)):
        page.set_viewport_size({"width": width, "height": 900})
        settled(beside=beside)
    page.set_viewport_size({"width": 1400, "height": 900})
    page.locator("#picture-choice").select_option("1")
    settled(beside=True)
    page.locator("summary").last.click()
    settled(beside=False)
    assert page.complaints == []
