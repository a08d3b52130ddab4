"""Runs code of the user; whatever it raises becomes one sentence that names the line it came from."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphsys.core.errors import ConfigError, GraphsysError

_GRAPHSYS = str(Path(__file__).parents[1])


@contextmanager
def user_code(what: str) -> Iterator[None]:
    """Run the block, which calls code of the user.

    Args:
        what: What is being done, for the message, such as ``model.class nets:Net: forward``.

    Raises:
        ConfigError: The code raised; graphsys's own errors pass unchanged.
    """
    try:
        yield
    except GraphsysError:
        raise
    except (Exception, SystemExit) as error:  # other people's code may raise anything
        reason = " ".join(str(error).split()) or "no reason given"
        raise ConfigError(
            f"{what} failed with {type(error).__name__}: {reason}{_place(error)}; mend it and run again"
        ) from error


def _place(error: BaseException) -> str:
    """Return the innermost line of code that belongs to no installed package, in brackets; nothing if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((_GRAPHSYS, "<"))]
    own = [frame for frame in own if "site-packages" not in frame.filename]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
