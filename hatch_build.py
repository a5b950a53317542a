"""Metadata of the wheel: the long description, and the addresses of the project.

README.md has relative links. An index page shows it elsewhere, so they become addresses in the public repository, which
`pyproject.toml` names, or plain text as long as there is none.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")


def long_description(text: str, repository: str) -> str:
    """Return Markdown in which no link is relative; code stays as it is."""

    def absolute(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        if not repository:
            return words
        path = f"README.md{target}" if target.startswith("#") else target
        return f"{mark}[{words}]({repository}/{'raw' if mark else 'blob'}/HEAD/{path})"

    parts = _CODE.split(text)
    return "".join(part if index % 2 else _LINK.sub(absolute, part) for index, part in enumerate(parts))


def addresses(repository: str) -> dict[str, str]:
    """Return `[project.urls]`, which is empty without a repository."""
    if not repository:
        return {}
    return {
        "Source": repository,
        "Documentation": f"{repository}/blob/HEAD/docs/index.md",
        "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class ProjectMetadata(MetadataHookInterface):
    """Sets `readme` and `urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by Hatchling."""
        repository = self.config["repository"]
        if repository and not re.fullmatch(r"https://[^\s/]+(/[^\s/]+)+", repository):
            raise ValueError(f"repository is {repository!r}; expected https://HOST/OWNER/NAME, or nothing")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": long_description(text, repository)}
        metadata["urls"] = addresses(repository)
