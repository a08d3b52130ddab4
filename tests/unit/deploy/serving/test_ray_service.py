"""The RayService manifest: fields that KubeRay and Ray Serve publish, and no secret in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from graphsys.core.errors import ConfigError
from graphsys.core.units import GIB
from graphsys.deploy.serving.ray_app import RayPlan, Scale, make_plan
from graphsys.deploy.serving.ray_service import ray_service
from graphsys.deploy.serving.settings import ServeSettings


def plan(scale: Scale | None = None, **settings: Any) -> RayPlan:
    return make_plan([Path("/data/emb.gs"), Path("/data/new.gs")], ServeSettings(**settings), scale or Scale())


def manifest(made: RayPlan | None = None, **options: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"image": "me/graphsys:1", "ray_version": "2.60.0", "memory": 4 * GIB, "secret": "key"}
    text = ray_service(made or plan(), **{**arguments, **options})
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree


def test_a_manifest_is_a_ray_service_with_the_published_fields() -> None:
    tree = manifest(volume="graphs:/data")
    assert (tree["apiVersion"], tree["kind"], tree["metadata"]) == ("ray.io/v1", "RayService", {"name": "graphsys"})
    assert set(tree["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    cluster = tree["spec"]["rayClusterConfig"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    (group,) = cluster["workerGroupSpecs"]
    assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "4096Mi"}
    assert container["ports"] == [{"containerPort": 8000, "name": "serve"}]
    assert container["volumeMounts"] == [{"name": "graphs", "mountPath": "/data"}]


def test_the_serve_config_is_one_that_ray_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    scale = Scale(min_replicas=2, max_replicas=6, target_requests=4)
    config = yaml.safe_load(manifest(plan(scale, max_ids=500))["spec"]["serveConfigV2"])
    known = ServeDeploySchema.model_validate(config)
    assert known.http_options.port == 8000
    (app,) = known.applications
    assert set(config["applications"][0]) <= set(type(app).model_fields)
    assert set(config["applications"][0]["deployments"][0]) <= set(type(app.deployments[0]).model_fields)
    assert config["applications"][0]["deployments"][0]["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 6,
        "target_ongoing_requests": 4,
    }
    sent = RayPlan.model_validate(app.args)
    assert sent.tables == [Path("/data/emb.gs"), Path("/data/new.gs")]
    assert sent.choice == Path("/data/active-table.json")
    assert sent.serve_settings().max_ids == 500


def test_replicas_start_only_with_the_token_that_a_secret_holds() -> None:
    cluster = manifest()["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]):
        (container,) = group["template"]["spec"]["containers"]
        source = {"secretKeyRef": {"name": "key", "key": "token"}}
        assert container["env"] == [{"name": "GRAPHSYS_TOKEN", "valueFrom": source}]
    settings = RayPlan.model_validate(yaml.safe_load(manifest()["spec"]["serveConfigV2"])["applications"][0]["args"])
    assert settings.serve_settings().host == "0.0.0.0"
    assert not settings.serve_settings().insecure
    assert "env" not in yaml.safe_dump(manifest(secret=None)["spec"]["rayClusterConfig"])


def test_more_replicas_than_the_fewest_let_ray_add_pods() -> None:
    cluster = manifest(plan(Scale(min_replicas=2, max_replicas=6)))["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    (group,) = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (2, 2, 6)


def test_what_pods_cannot_see_or_keep_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="pods see what lies below /mnt"):
        manifest(volume="graphs:/mnt")
    with pytest.raises(ConfigError, match="--token-secret"):
        manifest(plan(token_file=Path("/data/token")))
    with pytest.raises(ConfigError, match="--flight-port is not for --ray"):
        plan(flight_port=8081)
    with pytest.raises(ValueError, match="fewer than min_replicas"):
        Scale(min_replicas=3, max_replicas=2)
