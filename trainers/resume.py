"""Whether an earlier training in a run's folder can be continued, and from where."""

from graphsys.core.config import RunConfig
from graphsys.core.errors import StaleArtefactError, first_line
from graphsys.storage.files import remove_path
from graphsys.storage.manifest import Manifest, read_manifest
from graphsys.storage.store import Store
from graphsys.trainers.checkpoint import KIND, Checkpoint, latest_checkpoint, load_checkpoint, prune_checkpoints
from graphsys.trainers.model_factory import model_code
from graphsys.trainers.run_folder import RunFolder, differing_keys, training_identity
from graphsys.trainers.state import TrainState


def find_earlier(run: RunConfig, store: Store) -> Checkpoint | None:
    """Return the newest checkpoint in the run's folder, or None when training starts from nothing.

    Raises:
        StaleArtefactError: It was made from another store or with other settings; more epochs than it had are fine.
        CorruptError: Its bytes changed.
    """
    path = latest_checkpoint(run.out)
    if path is None:
        return None
    manifest = read_manifest(path, KIND)
    changes = _changes(run, store, manifest)
    if changes:
        raise StaleArtefactError(
            f"{path} was made by another run ({'; '.join(changes)}); choose another 'out', restore the settings, "
            f"or pass --overwrite to train anew"
        )
    return load_checkpoint(path)


def _changes(run: RunConfig, store: Store, manifest: Manifest) -> list[str]:
    before, after = manifest.config, training_identity(run)
    epochs = before["trainer"]["epochs"]
    after["trainer"]["epochs"] = min(after["trainer"]["epochs"], epochs)
    return [*changed_parents(run, store, manifest), *differing_keys(before, after)]


def training_parents(run: RunConfig, store: Store) -> dict[str, str]:
    """Return the fingerprints of what a training is made from: the store, and the user's code of the network.

    Raises:
        ConfigError: The user's class cannot be imported.
    """
    code = model_code(run.model)
    return {"store": store.fingerprint} if code is None else {"store": store.fingerprint, "model_code": code}


def changed_parents(run: RunConfig, store: Store, manifest: Manifest) -> list[str]:
    """Return one "name old -> new" per parent that a checkpoint has and a training of ``run`` would not have."""
    before, after = manifest.parents, training_parents(run, store)
    return [
        f"{name} {before.get(name, 'none')[:12]} -> {after.get(name, 'none')[:12]}"
        for name in ("store", "model_code")
        if before.get(name) != after.get(name)
    ]


def is_finished(run: RunConfig, earlier: Checkpoint) -> bool:
    """Whether ``earlier`` ended a training of as many epochs as the run asks for."""
    epochs: int = earlier.manifest.config["trainer"]["epochs"]
    return earlier.final and epochs == run.trainer.epochs


def take_over(state: TrainState, earlier: Checkpoint) -> None:
    """Put a training into the state of a checkpoint.

    Raises:
        StaleArtefactError: Its weights do not fit the model.
    """
    try:
        state.load(earlier.state)
        state.next_batch = earlier.cursor.next_batch_id
    except (RuntimeError, KeyError, ValueError) as error:
        reason = first_line(error)
        raise StaleArtefactError(
            f"{earlier.path} does not fit the model ({reason}): its code has changed; choose another 'out', or pass "
            f"--overwrite to train anew"
        ) from error


def forget(run: RunConfig) -> None:
    """Remove the checkpoints and logs of an earlier training."""
    folder = RunFolder(run.out)
    # Oldest first: a call killed here leaves the earlier training as it was, or none.
    prune_checkpoints(folder.checkpoints, keep=0)
    remove_path(folder.logs)
