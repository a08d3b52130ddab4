"""A run as a Ray job: sent to a cluster's job server, its log followed, its exit code returned."""

import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from graphsys.core.config import RunConfig
from graphsys.core.errors import ClusterError, ConfigError, DetachedError, first_line
from graphsys.deploy.bundle import entrypoint, fill_bundle, unpack_wheel
from graphsys.deploy.ray_session import answer_or_refuse

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

T = TypeVar("T")

_CALL_S = 60.0  # longest wait for one answer of the job server
_LOST_S = 60.0  # and for a server that does not answer at all, once the job is sent
_POLL_S = 1.0
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """How a job ended."""

    job: str  # its id on the cluster
    status: str  # SUCCEEDED, FAILED, STOPPED
    exit_code: int
    log: str


def submit(
    run: RunConfig, address: str, show: Callable[[str], None], *, wheel: Path | None = None, as_json: bool = False
) -> JobOutcome:
    """Run a training as a job of the cluster at ``address``, and return how it ended.

    Args:
        address: of the job server, such as http://127.0.0.1:8265.
        show: is given new text of the log, and what there is to say of the job.
        wheel: of graphsys, for a cluster that does not have it.
        as_json: the job ends its log with one line of JSON.

    Raises:
        ConfigError: The address does not answer, or refuses the job.
        InputError: There is no such wheel.
        ClusterError: The job server was lost.
        DetachedError: Ctrl-C or SIGTERM came while the log was followed; the message says how to go on.
    """
    with _bundle(run, wheel) as environment:
        client = _client(address)
        job = _sent(client, address, entrypoint(as_json=as_json), environment)
    show(f"job {job} on {address}; its page: {address.rstrip('/')}/#/jobs/{job}\n")
    try:
        return _follow(client, address, job, show)
    except BaseException as error:
        if isinstance(error, Exception):
            raise
        raise DetachedError(
            f"job {job} goes on without being followed; see it with `ray job logs {job} --follow --address {address}`, "
            f"end it with `ray job stop {job} --address {address}`",
            terminated=not isinstance(error, KeyboardInterrupt),
        ) from None


def _client(address: str) -> "JobSubmissionClient":
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--address is '{address}'; give the job server's, such as http://127.0.0.1:8265")
    answer_or_refuse(address, key="--address")
    from ray.exceptions import AuthenticationError

    try:
        from ray.job_submission import JobSubmissionClient

        client = _asked(lambda: JobSubmissionClient(address))
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)  # they tell of every file that is packed
        return client
    except AuthenticationError as error:
        raise ConfigError(
            f"--address {address} asks for a token and refused this command's ({first_line(error)}); set "
            f"RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the cluster's token where ~/.ray/auth_token is another"
        ) from error
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise ConfigError(f"--address {address} answers, but not as a Ray job server: {first_line(error)}") from error


@contextmanager
def _bundle(run: RunConfig, wheel: Path | None) -> Iterator[dict[str, Any]]:
    """Gather what the job is sent while the block runs; yield its runtime environment."""
    with tempfile.TemporaryDirectory(prefix="graphsys-job-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "sent").mkdir()
        fill_bundle(folder / "sent", run)
        package = None if wheel is None else unpack_wheel(wheel, folder / "wheel")
        yield {"working_dir": str(folder / "sent"), **({} if package is None else {"py_modules": [str(package)]})}


def _sent(client: "JobSubmissionClient", address: str, command: str, environment: dict[str, Any]) -> str:
    deadline = time.monotonic() + _LOST_S
    job = f"graphsys-{uuid.uuid4().hex[:8]}"
    while True:
        try:
            return _asked(lambda: client.submit_job(entrypoint=command, runtime_env=environment, submission_id=job))
        except TimeoutError as error:  # the cluster may have taken it all the same
            raise ClusterError(
                f"--address {address} has not said within {_CALL_S:.0f} s whether it took job {job}; see "
                f"`ray job status {job} --address {address}` before you submit it again"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            # A cluster that has just been started takes jobs a few seconds after it answers.
            if "try again later" not in str(error) or time.monotonic() > deadline:
                raise ConfigError(f"--address {address} refused the job: {first_line(error)}") from error
        time.sleep(_POLL_S)


def _follow(client: "JobSubmissionClient", address: str, job: str, show: Callable[[str], None]) -> JobOutcome:
    shown, answered = "", time.monotonic()
    while True:
        try:
            info = _asked(lambda: client.get_job_info(job))
            log = _asked(lambda: client.get_job_logs(job))
            answered = time.monotonic()
        except (OSError, RuntimeError, ValueError) as error:
            if time.monotonic() - answered > _LOST_S:
                raise ClusterError(
                    f"{address} has not answered for {_LOST_S:.0f} s ({first_line(error)}); what became of job {job} "
                    f"is not known. Submit the run again to go on from its newest checkpoint"
                ) from error
            time.sleep(_POLL_S)
            continue
        if log.startswith(shown) and len(log) > len(shown):
            show(log[len(shown) :])
            shown = log
        if info.status.is_terminal():
            code = info.driver_exit_code
            done = str(info.status) == "SUCCEEDED"
            if not done and info.message and code is None:
                show(f"{info.message}\n")
            exit_code = code if code is not None else 0 if done else 1
            return JobOutcome(job=job, status=str(info.status), exit_code=exit_code, log=log)
        time.sleep(_POLL_S)


def _asked(call: Callable[[], T]) -> T:
    """Return what the job server answers.

    Raises:
        ValueError: Its answer is not one of Ray's.
        OSError, RuntimeError: It does not answer in time, or refuses.
    """
    try:
        return _within(_CALL_S, call)
    except (LookupError, TypeError) as error:  # Ray's client takes an answer apart as if it had to be Ray's
        raise ValueError(
            f"its answer has another form than Ray's ({type(error).__name__}: {first_line(error)})"
        ) from error


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return what ``call`` returns; Ray's client sets no limit to its waits.

    Raises:
        TimeoutError: It did not return in time; its thread is left behind.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - raised in the calling thread
            failed.append(error)

    thread = threading.Thread(target=run, name="graphsys-job-call", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return found[0]
