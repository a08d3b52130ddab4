"""When to ask again, and after how long."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from graphsys.client.errors import RefusedError, UnreachableError
from graphsys.core.errors import ConfigError

Answer = TypeVar("Answer")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class UnsentError(UnreachableError):
    """Nothing was done: the request did not reach a server, or may be repeated without harm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one call goes on.

    A request is repeated only where that can do no harm: it never reached the server, or the server refused it before
    doing anything and said when to come back (429 and 503 with ``Retry-After``). Pauses double and are drawn at random
    (full jitter), so that many clients do not come back at once.
    """

    timeout_s: float  # of the whole call, pauses included
    retries: int

    def __post_init__(self) -> None:
        """Refuse what is no limit (ConfigError)."""
        if not self.timeout_s > 0 or self.retries < 0:
            raise ConfigError(
                f"timeout_s is {self.timeout_s} and retries {self.retries}; give more than 0 seconds and no negative "
                f"number of retries"
            )

    def call(self, attempt: Callable[[float], Answer]) -> Answer:
        """Return what ``attempt`` returns, called with the seconds that are left.

        Raises:
            RefusedError: The server refused the request, at last or once and for all.
            UnreachableError: It was not reached in time.
        """
        end = time.monotonic() + self.timeout_s
        for number in range(self.retries + 1):
            try:
                return attempt(max(end - time.monotonic(), 0.001))
            except (RefusedError, UnsentError) as error:
                pause = _pause(error, number)
                if pause is None or number == self.retries or time.monotonic() + pause >= end:
                    raise
            time.sleep(pause)
        raise AssertionError("a call ends with its last attempt")


def _pause(error: RefusedError | UnsentError, number: int) -> float | None:
    """Return the seconds to wait before attempt ``number + 1``; None: it is of no use, or not safe."""
    drawn = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number))
    if isinstance(error, UnsentError):
        return drawn
    if error.status in (429, 503) and error.retry_after_s is not None:
        return error.retry_after_s + drawn
    return None
