"""The check of `make docs` notices broken links and what pages would load from elsewhere."""

import pytest

from tools.check_site import browser_problems, external_links, link_problems

PAGE = '<!doctype html><title>a</title><h1 id="top">A</h1><img src="a.png"><a href="b/c.html#end">c</a>'


@pytest.fixture
def site(tmp_path):
    """Function that writes a site of two pages and an image; more goes into the first page."""

    def write(more=""):
        (tmp_path / "b").mkdir()
        (tmp_path / "a.html").write_text(PAGE + more, encoding="utf-8")
        (tmp_path / "b" / "c.html").write_text('<h1>C</h1><p id="end"><a href="../a.html">a</a>', encoding="utf-8")
        (tmp_path / "a.png").touch()
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('<a href="b/gone.html">', "b/gone.html leads nowhere"),
        ('<a href="b">', "b leads nowhere"),
        ('<img src="gone.png">', "gone.png leads nowhere"),
        ('<a href="b/c.html#gone">', "b/c.html#gone leads to no element"),
        ('<a href="#gone">', "#gone leads to no element"),
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "loads //fonts.example/x.css"),
        ('<img src="https://badge.example/x.svg">', "loads https://badge.example/x.svg"),
    ],
)
def test_a_problem_is_named(site, more, problem):
    assert link_problems(site(more)) == [f"a.html: {problem}"]


def test_links_elsewhere_are_listed_and_no_problem(site):
    more = '<a href="https://example.org/x"><a href="mailto:a@example.org"><a href="#top"><img src="data:image/png,">'
    found = site(more + '<link rel="canonical" href="https://example.org/y"><a href="a.html?x=1#top">')
    assert link_problems(found) == []
    assert external_links(found) == ["https://example.org/x", "https://example.org/y"]


def test_what_pages_do_in_a_browser_is_a_problem(site, chromium):
    """And a search that finds nothing is one."""
    folder = site("<script>console.warn('careful'); fetch('http://127.0.0.1:9/x').catch(() => 0)</script>")
    (folder / "search.html").write_text("<h1>Search</h1>", encoding="utf-8")
    found = list(browser_problems(folder, chromium, wait=1))
    assert {"a.html: console: careful", "a.html: http://127.0.0.1:9/x"} <= set(found)
    assert [line for line in found if line.startswith("search for ")]
    assert not [line for line in found if line.startswith("b/c.html")]
