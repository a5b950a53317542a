"""One line of the doctor's report."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "absent", "advice", "problem"]


@dataclass(frozen=True)
class Finding:
    """What the doctor found out about one thing.

    Attributes:
        state: "ok", "absent" (fine unless needed), "advice" (works, but not as well as it could here) or "problem".
        subject: What was looked at.
        detail: Version, or what is wrong.
        mend: The command that mends it; "" where there is nothing to mend, or no command of a shell does.
    """

    state: State
    subject: str
    detail: str
    mend: str = ""
