"""Served tables as a KubeRay RayService: the manifest that ``kubectl apply`` takes.

Source:
    KubeRay API reference, ray.io/v1 RayService (RayServiceSpec, RayClusterSpec); Ray Serve's config file, which is
    what ``serveConfigV2`` holds.
"""

from typing import Any

import yaml

from graphsys.core.errors import ConfigError
from graphsys.deploy.kuberay import check_seen, manifest_text, mebibytes, parse_volume, pod
from graphsys.deploy.serving.auth import TOKEN_VARIABLE
from graphsys.deploy.serving.ray_app import NAME, RayPlan, http_options

PORT = 8000  # where KubeRay's Kubernetes service looks for Serve
IMPORT_PATH = "graphsys.deploy.serving.ray_app:application"
TOKEN_KEY = "token"  # in the secret


def ray_service(
    plan: RayPlan,
    *,
    image: str,
    ray_version: str,
    memory: int,
    secret: str | None,
    volume: str | None = None,
) -> str:
    """Return the manifest as YAML; the token is named in it, never written.

    Args:
        plan: Its paths are those that pods see.
        image: Container image with Ray and graphsys.
        ray_version: Of that image.
        memory: Bytes of each pod.
        secret: Kubernetes secret whose key ``token`` holds the bearer token; None serves everybody who gets there.
        volume: "claim:/path" of the volume that holds the tables; replicas write there which one is active.

    Raises:
        ConfigError: An argument is not of that form.
    """
    check_seen(volume, [*plan.tables, plan.choice], "give the tables by their paths there")
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config(plan, insecure=secret is None), sort_keys=False),
            "rayClusterConfig": _cluster(plan, image, ray_version, memory, secret, volume),
        },
    }
    return manifest_text(manifest)


def serve_config(plan: RayPlan, *, insecure: bool) -> dict[str, Any]:
    """Return the config file of Ray Serve."""
    settings = plan.serve_settings()
    if settings.tls_cert is not None or settings.token_file is not None:
        raise ConfigError("--tls-cert and --token-file are not for --emit-k8s: use an ingress, and --token-secret")
    # The replicas must know that the world can reach them, so that none starts without a token.
    seen = {**plan.settings, "host": "0.0.0.0", "port": PORT, **({"insecure": True} if insecure else {})}
    sent = plan.model_copy(update={"settings": seen})
    return {
        "proxy_location": "EveryNode",
        "http_options": http_options(sent.serve_settings()),
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": sent.model_dump(mode="json", exclude_defaults=True),
                "deployments": [{"name": NAME, **plan.scale.options(settings)}],
            }
        ],
    }


def _cluster(
    plan: RayPlan, image: str, ray_version: str, memory: int, secret: str | None, volume: str | None
) -> dict[str, Any]:
    scale, mounted = plan.scale, parse_volume(volume)
    # One replica per worker pod; the proxy takes what a whole core leaves over.
    worker = {"cpu": f"{max(scale.cpus, 1):g}", "memory": mebibytes(memory)}
    fixed = scale.max_replicas == scale.min_replicas
    return {
        "rayVersion": ray_version,
        **({} if fixed else {"enableInTreeAutoscaling": True}),
        # The head runs Ray's own processes; without CPUs for Ray no replica is put there.
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": _serving_pod("ray-head", image, {"cpu": "2", "memory": mebibytes(memory)}, mounted, secret),
        },
        "workerGroupSpecs": [
            {
                "groupName": "replicas",
                "replicas": scale.min_replicas,
                "minReplicas": scale.min_replicas,
                "maxReplicas": scale.max_replicas,
                "rayStartParams": {},
                "template": _serving_pod("ray-worker", image, worker, mounted, secret),
            }
        ],
    }


def _serving_pod(
    name: str, image: str, resources: dict[str, str], volume: tuple[str, str] | None, secret: str | None
) -> dict[str, Any]:
    template = pod(name, image, resources, volume)
    container = template["spec"]["containers"][0]
    container["ports"] = [{"containerPort": PORT, "name": "serve"}]
    if secret is not None:
        source = {"secretKeyRef": {"name": secret, "key": TOKEN_KEY}}
        container["env"] = [{"name": TOKEN_VARIABLE, "valueFrom": source}]
    return template
