import pytest

from graphsys.trainers.pipeline.traffic import (
    forecast_traffic,
    graph_parallel_nbytes,
    pipeline_nbytes,
    reduce_nbytes,
)


def test_a_pipeline_sends_every_row_over_every_boundary_forward_and_back() -> None:
    # 10 nodes, 3 boundaries, 4 + 2 columns, 4 bytes, both directions.
    assert pipeline_nbytes(10, 4, 6) == 2 * 3 * 10 * 6 * 4
    assert pipeline_nbytes(10, 1, 6) == 0


def test_graph_parallelism_sends_every_mirrors_message_in_every_layer_forward_and_back() -> None:
    assert graph_parallel_nbytes(5, [7, 3, 3], itemsize=2) == 2 * 5 * 13 * 2
    assert graph_parallel_nbytes(0, [7, 3, 3]) == 0


def test_sums_of_weights_go_round_the_ways() -> None:
    assert reduce_nbytes(100, 1) == 0
    assert reduce_nbytes(100, 4) == 2 * 3 * 100 * 4


def test_a_hybrid_sends_both_and_counts_the_weights_apart() -> None:
    found = forecast_traffic(
        num_nodes=10, stages=2, mirrors=3, ways=2, row_channels=6, message_channels=[4, 4, 4, 4], weights=50
    )
    assert found.as_dict() == {"boundary": 480, "exchange": 384, "reduce": 400, "total": 864}


def test_the_papers_ratio_on_reddit_follows_from_its_bytes() -> None:
    # 8 stages, 32 layers of 100 columns and as many shared: 2.43 GiB is what the paper reports.
    assert pipeline_nbytes(232_965, 8, 200) / 2**30 == pytest.approx(2.43, abs=0.005)
