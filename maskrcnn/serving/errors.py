"""Errors that become answers, and the status of each.

Messages name places, types and limits, never anything that came with the request: it may be secret, or a script.
"""

from runtime.errors import EngineError, ImageError, ToolkitError


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
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):  # the cause: while it was decoded
        return 507
    return 400 if isinstance(error, ImageError) else 500


def message_of(error: Exception) -> str:
    """Return what the client is told about an error."""
    if status_of(error) == 507 and not isinstance(error, EngineError):
        return "there was too little memory for the image"
    if isinstance(error, ImageError) and error.__cause__ is not None and not isinstance(error.__cause__, ToolkitError):
        return str(error).partition(": ")[0]  # what follows is a decoder's, which quotes the file
    return str(error) if isinstance(error, ToolkitError) else "internal error: see the log"


def answer_error(error: Exception) -> Exception:
    """Return what to raise for an error of an image: a new one, which refers to no image, unless it is to be logged."""
    status = status_of(error)
    return error if status == 500 else RequestError(message_of(error), status)
