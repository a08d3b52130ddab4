from pathlib import Path
from typing import Any

import pytest

from graphsys.core.config import WHOLE_GRAPH_MODELS, load_run, parse_run
from graphsys.core.errors import ConfigError

MINIMAL = {"store": "a.gs", "out": "runs/a", "memory": "1GiB"}


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_run({**MINIMAL, **changes})
    return str(caught.value)


def test_the_run_file_of_the_architecture_page_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        """
store: cora.gs
out: runs/cora
memory: 1GiB
task: {type: node_classification, node_type: paper}
sampler: {fanouts: [10, 10], batch_size: 512, samples: fresh, seed: 0}
pack: {mode: auto, host_cache: 10%, window: auto, codec: float32, disk: 20GiB}
model: {name: sage, hidden: 64, num_layers: 2, dropout: 0.5}
trainer: {strategy: minibatch, epochs: 30, lr: 0.01, weight_decay: 5.0e-4, seed: 0, checkpoint_every: 1000}
cluster: {address: local, num_workers: 1}
embed: {layer: last, dtype: float32}
"""
    )
    run = load_run(path)
    assert run.memory == 1 << 30
    assert run.pack.disk == 20 << 30
    assert run.sampler.fanouts == (10, 10)
    assert run.num_layers == 2


def test_a_resolved_config_describes_the_same_run_again() -> None:
    run = parse_run({**MINIMAL, "model": {"class": "pkg.mod:Net", "kwargs": {"depth": 3}}})
    assert parse_run(run.resolved()) == run


def test_an_override_replaces_one_key_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("store: a\nout: b\nmemory: 1GiB\ntrainer: {epochs: 3, lr: 0.1}\n")
    run = load_run(path, ["trainer.lr=0.003", "sampler.fanouts=[5, 5, 5]"])
    assert (run.trainer.epochs, run.trainer.lr, run.sampler.fanouts) == (3, 0.003, (5, 5, 5))


@pytest.mark.parametrize("override", ["trainer.lr", "=3", "store.name=3", "trainer.lr=[1"])
def test_an_override_that_is_not_key_and_value_is_refused(tmp_path: Path, override: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("store: a\nout: b\nmemory: 1GiB\n")
    with pytest.raises(ConfigError, match="--set"):
        load_run(path, [override])


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    assert "unknown key 'sampler.fanout'; did you mean 'fanouts'?" in refused(sampler={"fanout": [10]})
    assert "unknown key 'trianer'; did you mean 'trainer'?" in refused(trianer={})
    assert "unknown key 'model.clas'; did you mean 'class'?" in refused(model={"clas": "a:B"})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="the key 'memory' is missing"):
        parse_run({"store": "a", "out": "b"})


def test_every_fault_is_reported_at_once() -> None:
    message = refused(trainer={"lr": "fast", "epochs": 0})
    assert "trainer.lr is 'fast'" in message
    assert "trainer.epochs is 0" in message


def test_a_value_that_fits_no_member_of_a_union_is_named_once() -> None:
    assert refused(pack={"window": "soon"}).count("pack.window") == 1


def test_a_size_without_a_known_unit_names_its_key() -> None:
    assert "memory: '3 parsecs'" in refused(memory="3 parsecs")


def test_fanouts_that_do_not_match_the_layers_are_refused() -> None:
    message = refused(sampler={"fanouts": [5, 5]}, model={"num_layers": 3})
    assert "sampler.fanouts has 2 entries and model.num_layers is 3" in message


@pytest.mark.parametrize("fanouts", [[], [0], [-2, 3]])
def test_fanouts_without_meaning_are_refused(fanouts: list[int]) -> None:
    assert "fanouts" in refused(sampler={"fanouts": fanouts})


@pytest.mark.parametrize("share", ["110%", "-1%", "many%", -5])
def test_a_cache_outside_the_features_is_refused(share: Any) -> None:
    assert "host_cache" in refused(pack={"host_cache": share})


@pytest.mark.parametrize("text", ["- a\n- b\n", "store: [", "3"])
def test_a_run_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="run file"):
        load_run(path)


def test_a_run_file_that_is_missing_or_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_run(binary)


@pytest.mark.parametrize("name", WHOLE_GRAPH_MODELS)
def test_a_network_for_whole_graphs_is_refused_where_batches_are_sampled(name: str) -> None:
    message = refused(model={"name": name, "num_layers": 32})
    assert f"model.name is {name}, which is trained on the whole graph; set trainer.strategy to pipeline" in message


def test_a_weight_decay_of_layers_is_refused_where_batches_are_sampled() -> None:
    assert "trainer.layer_weight_decay needs trainer.strategy: pipeline" in refused(trainer={"layer_weight_decay": 0.1})


@pytest.mark.parametrize(
    ("key", "value"), [("alpha", 1.5), ("alpha", -0.1), ("theta", 0), ("aggr", "max"), ("name", "gcnll")]
)
def test_a_wrong_value_of_a_deep_network_is_refused_by_key(key: str, value: object) -> None:
    assert f"model.{key} is {value!r}" in refused(model={key: value})


def pipeline(**changes: Any) -> dict[str, Any]:
    """Return the sections of a pipeline of four layers."""
    sections: dict[str, Any] = {
        "model": {"name": "gcnii", "num_layers": 4},
        "trainer": {"strategy": "pipeline"},
        "cluster": {"stages": 2},
    }
    return {name: {**sections.get(name, {}), **changes.get(name, {})} for name in {**sections, **changes}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"num_layers": None}}, "model.num_layers is missing"),
        ({"cluster": {"stages": 5}}, "cluster.stages is 5 and model.num_layers is 4"),
        ({"cluster": {"ways": 2, "chunks": 5}}, "chunks is 5 and ways is 2"),
        ({"cluster": {"num_workers": 3}}, "2 stages x 1 ways are 2 processes"),
        ({"trainer": {"precision": "bfloat16"}}, "computes in float32"),
    ],
)
def test_a_pipeline_that_does_not_fit_together_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refused(**pipeline(**changes))


def test_stages_are_refused_without_a_pipeline() -> None:
    assert "need trainer.strategy: pipeline" in refused(cluster={"stages": 2})


@pytest.mark.parametrize(
    ("cluster", "chunks", "world_size"),
    [
        ({"stages": 1}, 1, 1),
        ({"stages": 4}, 16, 4),
        ({"stages": 1, "ways": 3}, 3, 3),
        ({"stages": 2, "ways": 2}, 16, 4),
        ({"stages": 2, "chunks": 6, "num_workers": 2}, 6, 2),
    ],
)
def test_a_pipeline_has_four_chunks_per_process_and_one_stage_has_none_to_spare(
    cluster: dict[str, Any], chunks: int, world_size: int
) -> None:
    run = parse_run({**MINIMAL, **pipeline(cluster=cluster)})
    assert (run.cluster.num_chunks, run.cluster.world_size) == (chunks, world_size)
    assert run.num_layers == 4
    assert parse_run(run.resolved()) == run
