"""The page at `/`: one HTML file, which loads nothing else and sends images to `/predict`."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

_FACTS = '<script type="application/json" id="facts">{}</script>'
_HEADERS = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}


def page_route(facts: Mapping[str, Any]) -> Route:
    """Return the route of the page about a model; see `render_page`."""
    page = render_page(facts)
    headers = {"Content-Security-Policy": _policy(page), **_HEADERS}

    async def answer(_request: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    return Route("/", answer)


def render_page(facts: Mapping[str, Any]) -> str:
    """Return the page; it shows `facts` about the model and keeps its limits.

    They are `model`, `device`, `classes` (names without the background), `score_threshold` and `max_body` (bytes).
    """
    page = resources.files("maskrcnn.serving").joinpath("page.html").read_text(encoding="utf-8")
    # Escaped so that no text can end the element.
    told = json.dumps(facts).replace("<", "\\u003c")
    return page.replace(_FACTS, _FACTS.replace("{}", told))


def _policy(page: str) -> str:
    """Allow the page's own style and script by their digests, images from memory, and requests to this server."""
    style, script = (_digest(page, name) for name in ("style", "script"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def _digest(page: str, element: str) -> str:
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
