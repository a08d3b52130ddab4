import re
from xml.etree import ElementTree

import pytest

from graphsys.report.charts import HEIGHT, WIDTH, line_chart, paired_bars, stacked_bars
from graphsys.report.markup import Markup


def parsed(chart: Markup) -> ElementTree.Element:
    """Return the chart as a tree; it is well-formed, whatever the names hold."""
    return ElementTree.fromstring(chart)


def marks(chart: Markup, name: str) -> list[ElementTree.Element]:
    return [mark for mark in parsed(chart).iter(name) if mark.get("class", "").startswith("s")]


def test_a_line_goes_from_the_lower_left_to_the_upper_right_when_values_grow() -> None:
    chart = line_chart("Loss", {"training": [(1, 0.0), (2, 5.0), (3, 10.0)]}, x_label="step")
    points = [
        tuple(map(float, point.split(",")))
        for point in parsed(chart).findall(".//polyline")[0].get("points", "").split()
    ]
    assert points == sorted(points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)


def test_every_mark_says_its_value_and_the_chart_says_what_it_shows() -> None:
    chart = line_chart("Loss <now>", {"a & b": [(1, 0.5)]}, x_label="step")
    assert [tip.text for tip in parsed(chart).findall(".//circle/title")] == ["a & b, 1: 0.5"]
    svg = parsed(chart).find("svg")
    assert svg is not None
    named = (svg.get("aria-labelledby") or "").split()
    assert {element.get("id") for element in svg if element.get("id")} == set(named)


def test_a_baseline_is_drawn_even_when_every_value_is_above_it() -> None:
    chart = line_chart("Ratio", {"r": [(1, 1.5), (2, 1.6)]}, x_label="epoch", baseline=1.0)
    heights = [float(line.get("y1", "nan")) for line in parsed(chart).iter("line") if line.get("class") == "baseline"]
    assert len(heights) == 1
    assert 0 <= heights[0] <= HEIGHT


def test_stacked_bars_stand_on_each_other_and_heights_follow_values() -> None:
    chart = stacked_bars("Time", [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 0.0}], x_label="epoch")
    first, second, third = (
        {name: float(mark.get(name, "nan")) for name in ("x", "y", "height")} for mark in marks(chart, "rect")
    )
    assert second["height"] == pytest.approx(3 * first["height"], rel=1e-3)
    assert second["y"] + second["height"] == pytest.approx(first["y"], abs=1e-2)
    assert third["x"] > first["x"]
    assert len(marks(chart, "rect")) == 3  # nothing is drawn for zero


def test_many_bars_are_drawn_as_means_of_neighbours() -> None:
    chart = stacked_bars("Time", [{"a": float(index % 2)} for index in range(300)], x_label="epoch")
    tips = [tip.text for tip in parsed(chart).findall(".//rect/title")]
    assert len(tips) == 60
    assert tips[0] == "epochs 1 to 5, on average, a: 0.4"


def test_pairs_of_bars_carry_their_values_and_stay_inside() -> None:
    rows = {"pack": {"useful": 10.0, "device": 20.0}, "train": {"useful": 5.0, "device": 0.0}}
    chart = paired_bars("Bytes", rows, format_x=lambda value: f"{value:g} B")
    texts = [text.text for text in parsed(chart).iter("text")]
    assert texts == ["pack", "10 B", "20 B", "train", "5 B", "0 B"]
    assert all(float(mark.get("x", "nan")) + float(mark.get("width", "nan")) <= WIDTH for mark in marks(chart, "rect"))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"quoted"', "a & b"])
def test_names_cannot_break_out(name: str) -> None:
    for chart in (
        line_chart(name, {name: [(1, 1.0)]}, x_label=name),
        stacked_bars(name, [{name: 1.0}], x_label=name),
        paired_bars(name, {name: {name: 1.0}}),
    ):
        assert "<script" not in chart
        assert not re.search(r"&(?!amp;|lt;|gt;|quot;|#x27;)", chart)
        parsed(chart)
