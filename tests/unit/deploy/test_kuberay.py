from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.training import run_config

from graphsys.core.config import parse_run
from graphsys.core.errors import ConfigError
from graphsys.deploy.kuberay import ray_job


def manifest(**options: Any) -> dict[str, Any]:
    cluster = {"num_workers": 4, "threads": 2}
    run = run_config(Path("/data/s.gs"), Path("/data/My Run_7"), cluster=cluster, trainer={"device": "cuda"})
    tree: dict[str, Any] = yaml.safe_load(ray_job(run, image="me/graphsys:1", ray_version="2.60.0", **options))
    return tree


def test_a_manifest_is_a_ray_job_with_the_published_fields() -> None:
    tree = manifest()
    assert (tree["apiVersion"], tree["kind"]) == ("ray.io/v1", "RayJob")
    assert tree["metadata"] == {"name": "graphsys-my-run-7"}
    spec = tree["spec"]
    assert set(spec) == {
        "entrypoint", "runtimeEnvYAML", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }  # fmt: skip
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["entrypoint"].startswith("printenv GRAPHSYS_RUN > run.yaml && ")
    assert spec["entrypoint"].endswith("python -m graphsys.cli train run.yaml")


def test_the_run_travels_in_the_runtime_environment() -> None:
    environment = yaml.safe_load(manifest()["spec"]["runtimeEnvYAML"])
    assert set(environment) == {"env_vars"}
    run = parse_run(yaml.safe_load(environment["env_vars"]["GRAPHSYS_RUN"]))
    assert (run.cluster.address, run.cluster.num_workers) == ("auto", 4)
    sent = manifest(code="s3://b/code.zip")["spec"]["runtimeEnvYAML"]
    assert yaml.safe_load(sent) == {**environment, "working_dir": "s3://b/code.zip"}


def test_the_run_can_be_read_in_the_manifest() -> None:
    run = run_config(Path("/data/s.gs"), Path("/data/run"))
    lines = [line.strip() for line in ray_job(run, image="me/g:1", ray_version="2.60.0").splitlines()]
    assert "store: /data/s.gs" in lines


def test_a_pipeline_gets_a_pod_for_each_of_its_processes() -> None:
    trainer = {"strategy": "pipeline"}
    sections = {"model": {"name": "gcnii", "num_layers": 4}, "cluster": {"stages": 2, "ways": 2}, "trainer": trainer}
    run = run_config(Path("/data/s.gs"), Path("/data/run"), **sections)
    (group,) = yaml.safe_load(ray_job(run, image="me/g:1", ray_version="2.60.0"))["spec"]["rayClusterSpec"][
        "workerGroupSpecs"
    ]
    assert group["replicas"] == 4


def test_a_store_that_pods_cannot_see_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"/data/s\.gs does not; set store and out"):
        manifest(volume="graphs:/mnt")


def test_every_worker_gets_a_pod_with_its_cores_its_memory_and_a_gpu() -> None:
    spec = manifest(volume="graphs:/data")["spec"]["rayClusterSpec"]
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (4, 4, 4)
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "2112Mi", "nvidia.com/gpu": "1"}
    assert container["volumeMounts"] == [{"name": "graphs", "mountPath": "/data"}]
    assert pod["volumes"] == [{"name": "graphs", "persistentVolumeClaim": {"claimName": "graphs"}}]
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    assert spec["rayVersion"] == "2.60.0"
