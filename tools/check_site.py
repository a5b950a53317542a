"""Check the built documentation site: `python -m tools.check_site build/site`, a part of `make docs`.

Every link inside the site leads to a file and, after a `#`, to an element of it. No page loads anything from elsewhere.
Opened from the disk in Chromium, where there is one, no page writes to the console or asks for anything but files, and
the search finds a word. Links to other sites are listed, not followed.

Exit codes: 0 all of this holds; 1 something does not, with a line for each problem.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

_LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src")}
_NO_FILES = {"canonical", "search", "next", "prev", "index", "author", "copyright"}  # what a <link> may only name
_QUERY = "letterbox"  # a word of several pages


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[tuple[str, bool]] = []  # the address, and whether a browser loads it with the page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what can be linked to, and what is linked."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.names.add(value)
            elif (tag, name) == ("a", "href") and value is not None:
                self.links.append((value, False))
            elif (tag, name) in _LOADED and value:
                loads = tag != "link" or (dict(attrs).get("rel") or "") not in _NO_FILES
                self.links.append((value, loads))


def read_pages(site: Path) -> dict[Path, _Page]:
    """Parse every page of a site."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        pages[path.resolve()] = page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
    return pages


def link_problems(site: Path) -> list[str]:
    """Return a line for each link that leads nowhere, and for each thing that is loaded from elsewhere."""
    pages = read_pages(site)
    return [
        f"{path.relative_to(site.resolve())}: {problem}"
        for path, page in pages.items()
        for address, loaded in page.links
        if (problem := _link_problem(path, address, loaded, pages))
    ]


def _link_problem(path: Path, address: str, loaded: bool, pages: dict[Path, _Page]) -> str | None:
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return f"loads {address}" if loaded and parts.scheme != "data" else None
    file, anchor = urldefrag(address)
    target = (path.parent / unquote(file.partition("?")[0])).resolve() if file else path
    if not target.is_file():
        return f"{address} leads nowhere"
    if anchor and target in pages and unquote(anchor) not in pages[target].names:
        return f"{address} leads to no element"
    return None


def external_links(site: Path) -> list[str]:
    """Return the links to other sites, each once."""
    links = {address for page in read_pages(site).values() for address, _ in page.links}
    return sorted(address for address in links if urlsplit(address).scheme in ("http", "https"))


def browser_problems(site: Path, chromium: str, wait: float = 60) -> Iterator[str]:
    """Open every page from the disk, and search, at most `wait` seconds each; yields a line for each problem."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (only where there is a browser)

    found: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(1000 * wait)
        page.on("console", lambda message: found.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: found.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or found.append(request.url))
        others = {site.resolve() / name for name in ("index.html", "search.html")}  # leads on; has its own check below
        for path in sorted(set(site.resolve().rglob("*.html")) - others):
            page.goto(path.as_uri(), wait_until="load")
            if not page.evaluate("document.querySelector('h1')?.innerText"):
                found.append("no heading is shown")
            yield from (f"{path.relative_to(site.resolve())}: {problem}" for problem in found)
            found.clear()
        page.goto((site.resolve() / "search.html").as_uri() + f"?q={_QUERY}")
        try:
            page.locator("#search-results li a").first.wait_for()
        except Exception as error:  # noqa: BLE001  (whatever it is, the search does not work)
            found.append(str(error).splitlines()[0])
        yield from (f"search for {_QUERY}: {problem}" for problem in found)
        browser.close()


def main(site: Path) -> int:
    """Check a built site; returns the exit code."""
    problems = link_problems(site)
    links = external_links(site)
    _say(f"{len(links)} links to other sites, not followed:")
    for link in links:
        _say(f"  {link}")
    chromium = os.environ.get("MASKRCNN_CHROMIUM") or shutil.which("chromium")
    if chromium:
        problems += browser_problems(site, chromium)
    else:
        _say("not opened in a browser: install chromium, or name one in MASKRCNN_CHROMIUM")
    for problem in problems:
        _say(f"error: {problem}")
    _say(f"{site / 'index.html'}: {len(read_pages(site))} pages, {len(problems)} problems")
    return 1 if problems else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
