"""Workers of a training as processes over gloo, without Ray.

As a program it loads torch once and forks, which is far faster than starting every worker anew.
"""

import json
import os
import select
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from graphsys.core.config import RunConfig, parse_run
from graphsys.core.errors import GraphsysError
from graphsys.core.progress import SILENT, Progress, SilentProgress, Task

WAIT_S = 30
LIMIT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training by ``world_size`` workers; ``kill`` ends worker ``kill[0]`` after ``kill[1]`` batches of all."""

    run: RunConfig
    world_size: int
    kill: tuple[int, int] | None = None


class Gang:
    """A process that has loaded everything and forks workers when it is asked; ends with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder  # receives the files by which workers find each other
        self._errors = folder / "errors.txt"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "helpers.gang"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"},
                process_group=0,
            )

    def train_all(self, *jobs: Job) -> list[list[int]]:
        """Run the jobs in order; return the exit code of every worker of every job: 2 for a refusal, -9 for a kill."""
        sent, answers = self._process.stdin, self._process.stdout
        assert sent is not None
        assert answers is not None
        sent.write(json.dumps([[job.run.resolved(), job.world_size, job.kill] for job in jobs]) + "\n")
        sent.flush()
        if not select.select([answers], [], [], LIMIT_S)[0]:
            self.close()
            raise TimeoutError(f"the workers had not ended after {LIMIT_S} s")
        codes: list[list[int]] = json.loads(answers.readline())
        return codes

    def train(self, run: RunConfig, world_size: int, *, kill: tuple[int, int] | None = None) -> list[int]:
        """Run one job; see :meth:`train_all`."""
        return self.train_all(Job(run=run, world_size=world_size, kill=kill))[0]

    @property
    def errors(self) -> str:
        """What all workers said when they failed."""
        return self._errors.read_text()

    def close(self) -> None:
        """End the process and all its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=LIMIT_S)


class _KillMyself(SilentProgress):
    def __init__(self, batches: int) -> None:
        self.left = batches

    def start(self, title: str, total: float | None, unit: str) -> Task:
        del total, unit
        return self if title == "train" else super().start(title, None, "")

    def advance(self, amount: float = 1) -> None:
        self.left -= int(amount)
        if self.left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text: str) -> None:
        del text


def _work(run: RunConfig, rank: int, world_size: int, meeting: str, progress: Progress) -> int:
    import torch.distributed as dist

    from graphsys.trainers.data_parallel import train_worker
    from graphsys.trainers.outcome import write_stages

    limit = timedelta(seconds=WAIT_S)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size, timeout=limit)
    try:
        stages = train_worker(run, rank=rank, world_size=world_size, progress=progress)
        if rank == 0 and stages:
            write_stages(run, stages)
    except GraphsysError as error:
        sys.stderr.write(f"worker {rank}: {error}\n")
        return 2
    except RuntimeError as error:  # another worker was lost
        sys.stderr.write(f"worker {rank}: {error}\n")
        return 3
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()
    return 0


def _run(tree: dict[str, Any], world_size: int, kill: list[int] | None, meeting: Path) -> list[int]:
    run, children = parse_run(tree), []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            progress = _KillMyself(kill[1]) if kill and kill[0] == rank else SILENT
            code = 1
            try:
                code = _work(run, rank, world_size, f"file://{meeting}", progress)
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    """Run the jobs that each line of standard input names; print their exit codes as one line."""
    import graphsys.trainers.data_parallel  # noqa: F401 - loaded once, before the forks

    for number, line in enumerate(sys.stdin):
        codes = []
        for job, (tree, world_size, kill) in enumerate(json.loads(line)):
            meeting = Path(f"meeting-{os.getpid()}-{number}-{job}").resolve()
            codes.append(_run(tree, world_size, kill, meeting))
            meeting.unlink(missing_ok=True)
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
