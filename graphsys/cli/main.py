"""The program ``graphsys``: runs one command and turns its outcome into an exit code.

0: done. 1: a bug in graphsys, with a traceback, or a cluster that was lost, in one sentence. 2: something the user can
mend, in one sentence. 130: Ctrl-C. 143: SIGTERM.
"""

import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import typer

from graphsys.cli.app import command
from graphsys.core.errors import ClusterError, DetachedError, GraphsysError

DONE, BUG, LOST, USER_ERROR, INTERRUPTED, TERMINATED = 0, 1, 1, 2, 130, 143


class _Terminated(BaseException):
    """SIGTERM came."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names (the process's own arguments when None); return the exit code."""
    try:
        with _unwinding_on_sigterm():
            outcome = command().main(args=argv, prog_name="graphsys", standalone_mode=False)
    except GraphsysError as error:
        return _ended(error)
    except typer.TyperException as error:
        return _refuse(_usage(error))
    except (KeyboardInterrupt, typer.Abort, _Terminated) as error:
        return _interrupted(TERMINATED if isinstance(error, _Terminated) else INTERRUPTED)
    except MemoryError as error:
        return _refuse(f"this machine has not enough memory: {error or 'an allocation failed'}; make the input smaller")
    except Exception:  # noqa: BLE001 - the outermost boundary: whatever else arrives here is a bug, and is shown whole
        traceback.print_exc()
        sys.stderr.write("This is a bug in graphsys, please report it with the lines above.\n")
        return BUG
    # Help, --version and Ctrl-C end in a code of typer's own; a command that ran to its end returns None.
    code = outcome if isinstance(outcome, int) else DONE
    return _interrupted(code) if code == INTERRUPTED else code


def _ended(error: GraphsysError) -> int:
    if isinstance(error, DetachedError):
        return _interrupted(TERMINATED if error.terminated else INTERRUPTED, str(error))
    return _refuse(str(error), LOST if isinstance(error, ClusterError) else USER_ERROR)


def _interrupted(code: int, text: str = "") -> int:
    sys.stderr.write(f"interrupted; {text or 'run the same command again to go on'}\n")
    return code


@contextmanager
def _unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block like an error, so that what is half-written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(sentence: str, code: int = USER_ERROR) -> int:
    if sentence:  # empty when no command was given at all: the help is the answer then
        sys.stderr.write(f"error: {' '.join(sentence.split())}\n")
    return code


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message().replace("Value error, ", "")  # pydantic's, in front of a list of choices
    if context is None or not message:
        return message
    stop = "" if message.endswith((".", "?", "!")) else "."
    return f"{message}{stop} Try '{context.command_path} --help'."
