from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.graphs import tiny_store
from helpers.trained import make_run, train_nothing

from graphsys.core.errors import MemoryBudgetError
from graphsys.storage.store import Store
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.inference import infer, open_trained


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny_store(tmp_path)


def test_every_split_is_scored_on_the_outputs_of_its_own_nodes(store: Path, tmp_path: Path) -> None:
    run = make_run(store, tmp_path / "run")
    train_nothing(run)
    result = evaluate(run)
    output = infer(open_trained(run)).last.read()
    held = Store.open(store)
    for split in ("train", "val", "test"):
        node = held.split("node", split)
        y = held.labels("node")[node]
        assert result.metrics[split]["accuracy"] == pytest.approx((output[node].argmax(axis=1) == y).mean())
        loss = torch.nn.functional.cross_entropy(torch.from_numpy(output[node]), torch.from_numpy(y))
        assert result.metrics[split]["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_second_evaluation_uses_the_outputs_on_disk(store: Path, tmp_path: Path) -> None:
    run = make_run(store, tmp_path / "run")
    train_nothing(run)
    first, second = evaluate(run), evaluate(run)
    assert second.metrics == first.metrics
    skipped = [
        result.report.details["inference"]["skipped"] for result in (first, second, evaluate(run, overwrite=True))
    ]
    assert skipped == [False, True, False]


def test_a_graph_without_splits_has_no_metrics(tmp_path: Path) -> None:
    run = make_run(tiny_store(tmp_path, splits=False), tmp_path / "run")
    train_nothing(run)
    assert evaluate(run).metrics == {}


def test_the_result_is_plain_json(store: Path, tmp_path: Path) -> None:
    run = make_run(store, tmp_path / "run")
    train_nothing(run)
    values = evaluate(run).as_dict()
    assert set(values) == {"train", "val", "test", "checkpoint", "check", "report"}
    assert values["report"]["name"] == "evaluate"
    assert np.isfinite(values["test"]["accuracy"])


def test_a_budget_below_one_neighbourhood_is_refused(store: Path, tmp_path: Path) -> None:
    run = make_run(store, tmp_path / "run", memory="8KiB")
    train_nothing(run)
    with pytest.raises(MemoryBudgetError, match="set memory to at least"):
        evaluate(run)
