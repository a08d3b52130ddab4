"""A run as a KubeRay RayJob: the manifest that ``kubectl apply`` takes.

Source:
    KubeRay API reference, ray.io/v1 RayJob (RayJobSpec, RayClusterSpec).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError
from graphsys.core.units import GIB, MIB
from graphsys.deploy.bundle import RUN_NAME, entrypoint, run_text

_INTERPRETERS = 2 * GIB  # of a pod, beside run.memory: interpreters with torch, and Ray's own processes
_RUN_VARIABLE = "GRAPHSYS_RUN"
_REMOTE = ("http://", "https://", "s3://", "gs://", "abfss://", "azure://", "hdfs://")


def ray_job(
    run: RunConfig,
    *,
    image: str,
    ray_version: str,
    code: str | None = None,
    volume: str | None = None,
) -> str:
    """Return the manifest as YAML; the run file travels in it.

    Args:
        image: container image with Ray and graphsys.
        ray_version: of that image.
        code: address of a .zip of the user's model code.
        volume: "claim:/path" of the volume that holds the store and receives what the run writes.

    Raises:
        ConfigError: An argument is not of that form, or store or run folder do not lie on the volume.
    """
    if code is not None and not code.startswith(_REMOTE):
        raise ConfigError(f"--code is '{code}'; pods fetch it themselves: give an address such as https://...")
    remedy = "set store and out to paths there, such as --set store=/data/my.gs --set out=/data/runs/my"
    check_seen(volume, [run.store.absolute(), run.out.absolute()], remedy)
    environment: dict[str, Any] = {"env_vars": {_RUN_VARIABLE: run_text(run)}}
    if code is not None:
        environment["working_dir"] = code
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": _name(run)},
        "spec": {
            "entrypoint": f"printenv {_RUN_VARIABLE} > {RUN_NAME} && {entrypoint(as_json=False)}",
            "runtimeEnvYAML": manifest_text(environment),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": _cluster(run, image, ray_version, parse_volume(volume)),
        },
    }
    return manifest_text(manifest)


def _name(run: RunConfig) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", run.out.name.lower()).strip("-")
    return f"graphsys-{words or 'run'}"[:47].rstrip("-")  # KubeRay adds to it, and 63 characters are the limit


def parse_volume(volume: str | None) -> tuple[str, str] | None:
    """Return claim and path of a "claim:/path".

    Raises:
        ConfigError: It is not of that form.
    """
    if volume is None:
        return None
    claim, _, path = volume.partition(":")
    if not claim or not path.startswith("/"):
        raise ConfigError(f"--volume is '{volume}'; write it as claim:/path, such as graphs:/data")
    return claim, path


def check_seen(volume: str | None, paths: Sequence[Path], remedy: str) -> None:
    """Check that pods see ``paths``, where a volume is given.

    Raises:
        ConfigError: One lies elsewhere.
    """
    mounted = parse_volume(volume)
    hidden = [path for path in paths if mounted is not None and not path.is_relative_to(mounted[1])]
    if mounted is not None and hidden:
        raise ConfigError(f"pods see what lies below {mounted[1]}, and {hidden[0]} does not; {remedy}")


def _cluster(run: RunConfig, image: str, ray_version: str, volume: tuple[str, str] | None) -> dict[str, Any]:
    workers = run.cluster.world_size
    head = pod("ray-head", image, {"cpu": "2", "memory": _memory(run)}, volume)
    resources = {"cpu": str(max(run.cluster.threads, 1)), "memory": _memory(run)}
    if run.trainer.device == "cuda":
        resources["nvidia.com/gpu"] = "1"
    return {
        "rayVersion": ray_version,
        # The head plans and evaluates; without CPUs for Ray no worker is put there.
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head},
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": workers,
                "minReplicas": workers,
                "maxReplicas": workers,
                "rayStartParams": {},
                "template": pod("ray-worker", image, resources, volume),
            }
        ],
    }


def _memory(run: RunConfig) -> str:
    return mebibytes(run.memory + _INTERPRETERS)


def mebibytes(size: int) -> str:
    """Return a number of bytes as Kubernetes spells it, rounded up."""
    return f"{-(-size // MIB)}Mi"


def pod(name: str, image: str, resources: dict[str, str], volume: tuple[str, str] | None) -> dict[str, Any]:
    """Return the template of a pod with one container, and a volume given as (claim, path)."""
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "resources": {"requests": dict(resources), "limits": dict(resources)},
    }
    spec: dict[str, Any] = {"containers": [container]}
    if volume is not None:
        claim, path = volume
        container["volumeMounts"] = [{"name": "graphs", "mountPath": path}]
        spec["volumes"] = [{"name": "graphs", "persistentVolumeClaim": {"claimName": claim}}]
    return {"spec": spec}


def manifest_text(manifest: dict[str, Any]) -> str:
    """Return a manifest as YAML in which texts of several lines, such as a run file, can be read and edited."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, as people write them."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
