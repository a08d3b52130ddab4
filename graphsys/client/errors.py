"""What a request can come to, other than an answer."""

import json
from typing import Any

from graphsys.core.errors import GraphsysError

LONGEST_TEXT = 300  # characters of an answer that is no problem, as shown in a message


class UnreachableError(GraphsysError):
    """No server answered: it could not be reached, or not within the time limit."""


class RefusedError(GraphsysError):
    """The server refused a request.

    Attributes:
        status: HTTP status; over Arrow Flight the one that HTTP would have.
        title: The kind of problem in a few words.
        detail: What was found, what was expected, and the next step.
        retry_after_s: Seconds after which the server asks to try again; None where it does not.
    """

    def __init__(self, status: int, title: str, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(f"{title} ({status}): {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.retry_after_s = retry_after_s


def refusal(status: int, body: bytes, *, reason: str = "", retry_after: str | None = None) -> RefusedError:
    """Return the error that an answer tells of; one that is no problem of ours is shown as text.

    Args:
        retry_after: Value of the header of that name; only seconds are understood.
    """
    found = _problem(body)
    text = " ".join(body.decode(errors="replace").split())[:LONGEST_TEXT]
    return RefusedError(
        status,
        str(found.get("title") or reason or "refused"),
        str(found.get("detail") or text or "the answer says nothing more"),
        retry_after_s=float(retry_after) if retry_after and retry_after.isdecimal() else None,
    )


def _problem(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
