"""What a run's folder tells: settings, logs, prediction, result and where the run stands."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graphsys.core.errors import ArtefactError
from graphsys.storage.files import disk_errors, is_claimed
from graphsys.storage.manifest import MANIFEST_NAME, Manifest, open_sealed_json, read_manifest
from graphsys.storage.run_file import PLAN_NAME, RESULT_NAME, RUN_FILE_NAME, verify_run_file
from graphsys.storage.run_log import CALLS_NAME, LOG_NAME, read_lines

_CHECKPOINT = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """All that the page says of a run, as plain JSON values."""

    folder: Path
    config: dict[str, Any]  # the resolved run file
    state: str  # "finished", "trained", "under way" or "stopped"
    steps: list[dict[str, Any]]  # lines of the log by kind, oldest first
    epochs: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    checkpoint: Manifest | None  # of the newest one
    plan: dict[str, Any] | None  # what the run was predicted to cost
    result: dict[str, Any] | None  # of the finished run

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def planned_epochs(self) -> int:
        """Epochs that the run asks for."""
        epochs: int = self.config["trainer"]["epochs"]
        return epochs

    @property
    def is_pipeline(self) -> bool:
        """Whether the run trains on the whole graph."""
        strategy: str = self.config["trainer"]["strategy"]
        return strategy == "pipeline"

    @property
    def batch_epochs(self) -> list[dict[str, Any]]:
        """The epochs that had batches, with an account of their rows and bytes."""
        return [epoch for epoch in self.epochs if "io" in epoch]

    @property
    def config_text(self) -> str:
        """The resolved run file."""
        return yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)

    @property
    def sentence(self) -> str:
        """Where the run stands, for people."""
        done, planned = len(self.epochs), self.planned_epochs
        if self.state == "finished":
            early = "" if done >= planned else f", of {planned} at most: validation got no better"
            return f"Finished: trained for {done} epochs{early}, and evaluated exactly."
        if self.state == "trained":
            return f"Trained for {done} epochs; the exact evaluation is missing. `graphsys train` again makes it."
        if self.state == "under way":
            return f"Under way: {done} of {planned} epochs are done; the page shows the run at the time of writing."
        where = f"at step {self.checkpoint.content['step']}" if self.checkpoint else "from the start"
        return (
            f"Stopped early, after {done} of {planned} epochs. `graphsys train` with the same run file goes on {where}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "run": self.name,
            "folder": str(self.folder),
            "state": self.state,
            "sentence": self.sentence,
            "planned_epochs": self.planned_epochs,
            "epochs": self.epochs,
            "result": self.result,
            "plan": self.plan,
            "calls": self.calls,
            "config": self.config,
        }


def read_facts(folder: Path) -> RunFacts:
    """Read a run's folder, whatever state the run is in.

    Raises:
        ArtefactError: It is no run's folder, or nothing was trained there.
        CorruptError: A file in it was changed after the run wrote it.
        DiskError: The system refused a read.
    """
    with disk_errors("read", folder):
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise ArtefactError(f"{folder} {what}; give the folder of a run, which is the 'out' of its run file")
        if not (folder / RUN_FILE_NAME).is_file():
            raise ArtefactError(
                f"{folder} is not the folder of a training: it holds no {RUN_FILE_NAME}; give the 'out' of a run file "
                f"that `graphsys train` was called with"
            )
    config = verify_run_file(folder / RUN_FILE_NAME)
    checkpoint = _newest_checkpoint(folder)
    result = _result(folder, checkpoint)
    lines = read_lines(folder / "logs" / LOG_NAME)
    return RunFacts(
        folder=folder.absolute(),
        config=config,
        state=_state(folder, config, checkpoint, result),
        steps=[line for line in lines if line.get("kind") == "step"],
        epochs=[line for line in lines if line.get("kind") == "epoch" and ("io" in line or "pipeline" in line)],
        calls=read_lines(folder / "logs" / CALLS_NAME),
        checkpoint=checkpoint,
        plan=open_sealed_json(folder / PLAN_NAME) if (folder / PLAN_NAME).is_file() else None,
        result=result,
    )


def _newest_checkpoint(folder: Path) -> Manifest | None:
    found = {
        int(match[1]): path.parent
        for path in (folder / "checkpoints").glob(f"step-*/{MANIFEST_NAME}")
        if (match := _CHECKPOINT.fullmatch(path.parent.name))
    }
    return read_manifest(found[max(found)], "checkpoint") if found else None


def _result(folder: Path, checkpoint: Manifest | None) -> dict[str, Any] | None:
    path = folder / RESULT_NAME
    if checkpoint is None or not path.is_file():
        return None
    result = open_sealed_json(path)
    # What an earlier training left says nothing of one that went on.
    return result if result["checkpoint_fingerprint"] == checkpoint.fingerprint else None


def _state(folder: Path, config: dict[str, Any], checkpoint: Manifest | None, result: dict[str, Any] | None) -> str:
    trained = (
        checkpoint is not None
        and checkpoint.content["final"]
        and checkpoint.config["trainer"]["epochs"] == config["trainer"]["epochs"]
    )
    if trained and result is not None:
        return "finished"
    if is_claimed(folder):
        return "under way"
    return "trained" if trained else "stopped"
