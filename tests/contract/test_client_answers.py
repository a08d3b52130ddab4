"""The client's searches and predictions against a real server of a trained run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.serving import running, service_with
from helpers.trained import make_run, train_nothing

from graphsys.client import Client, RefusedError
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.store import Store
from graphsys.trainers.embed import embed
from graphsys.trainers.run_folder import write_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served")
    run = make_run(tiny_store(made), made / "run", model={"name": "gcn", "hidden": 8})
    train_nothing(run)
    write_config(run)
    embed(run)
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    service = service_with(EmbeddingTable.open(folder / "run" / "embeddings.gs"))
    with running(service) as url, Client(url) as opened:
        yield opened


def test_a_search_for_an_id_and_for_its_vector_find_the_same(client: Client) -> None:
    by_id = client.search(ids=[3, 10**6, 50], k=4, include_self=True, exact=True)
    assert by_id.found.tolist() == [True, False, True]
    assert by_id.num_found.tolist() == [4, 0, 4]
    vectors = client.lookup([3, 50]).vectors
    by_vector = client.search(vectors=vectors, k=4, exact=True, version=by_id.version)
    assert by_vector.ids.tolist() == by_id.ids[[0, 2]].tolist()
    np.testing.assert_allclose(by_vector.scores, by_id.scores[[0, 2]], rtol=1e-6)
    assert by_vector.metric == by_id.metric == "cosine"
    with pytest.raises(RefusedError, match="k is 0; ask for 1"):
        client.search(vectors=vectors, k=0)


def test_a_stored_node_taken_for_new_gets_its_stored_vector_and_prediction(client: Client, folder: Path) -> None:
    store = Store.open(folder / "tiny.gs")
    topology = store.topology(store.edge_type_within("node"))
    known = topology.indices[topology.indptr[3] : topology.indptr[4]]
    x = store.features("node").read()[[3]]
    found = client.infer(x, new=[0] * len(known), known=known, predict=True)
    np.testing.assert_allclose(found.vectors, client.lookup([3]).vectors, rtol=1e-5, atol=1e-5)
    said = client.predict([3, 10**6])
    assert said.found.tolist() == [True, False]
    assert said.classes == found.classes
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[0], said.probabilities[0], atol=1e-5)
    assert not said.probabilities[1].any()
    assert client.infer(x).probabilities is None
    many = client.predict([*[3] * 99, 10**6])  # as Arrow
    assert many.classes == said.classes
    assert many.found.tolist() == [True] * 99 + [False]
    np.testing.assert_allclose(many.probabilities, said.probabilities[[0] * 99 + [1]], rtol=1e-6)


def test_an_edge_among_new_nodes_changes_who_gets_it(client: Client, folder: Path) -> None:
    x = Store.open(folder / "tiny.gs").features("node").read()[[3, 50]]
    alone, joined = client.infer(x), client.infer(x, source=[0], target=[1])
    np.testing.assert_array_equal(alone.vectors[0], joined.vectors[0])
    assert (alone.vectors[1] != joined.vectors[1]).any()
