"""Node ids a part at a time."""

import numpy as np

from graphsys.deploy.serving.node_parts import node_parts


def test_parts_hold_all_ids_in_their_order_and_the_last_one_what_is_left() -> None:
    assert [part.tolist() for part in node_parts(np.array([2, 3, 5, 7, 11]), 2)] == [[2, 3], [5, 7], [11]]
    assert list(node_parts(np.empty(0, np.int64), 2)) == []
