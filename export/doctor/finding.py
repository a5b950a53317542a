"""One line of the doctor's report."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "absent", "advice", "problem"]


@dataclass(frozen=True)
class DoctorFinding:
    """What the doctor found out about one package, engine, device or artifact.

    Attributes:
        state: "absent" is fine unless needed; "advice" works, but not as well as it could here.
        subject: What was examined.
        detail: Version, or what is wrong.
        fix: Shell command that fixes it; "" if nothing is wrong or no command fixes it everywhere.
    """

    state: State
    subject: str
    detail: str
    fix: str = ""
