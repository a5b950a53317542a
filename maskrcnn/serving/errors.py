"""Errors that become answers, and the status of each.

Messages name places, types and limits, never anything that came with the request: it may be secret, or a script.
"""

from runtime.errors import ImageError, ToolkitError


class RequestError(ToolkitError):
    """A request that is not answered with a result.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BusyError(RequestError):
    """As many images wait as may, or the server is about to end.

    Attributes:
        seconds: After how many seconds another try makes sense.
    """

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message, 503)
        self.seconds = seconds


def status_of(error: Exception) -> int:
    """Return the HTTP status for an error of a request."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, ImageError):
        return 400
    return 507 if isinstance(error, MemoryError) else 500


def message_of(error: Exception) -> str:
    """Return what the client is told about an error."""
    if isinstance(error, ToolkitError):
        return str(error)
    return (
        "there was too little memory for the image" if isinstance(error, MemoryError) else "internal error: see the log"
    )
