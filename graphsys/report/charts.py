"""Small charts as inline SVG: lines, stacked bars over epochs, pairs of bars. Colours and fonts come from the page.

Every chart has a title and a description for screen readers, and every mark tells its value when pointed at. Series are
numbered; the page gives number n the colour ``--n``.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from graphsys.report.markup import Markup, join, tag
from graphsys.report.scale import Axis, axis, number

WIDTH, HEIGHT = 460, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 10, 10, 34  # margins of the plot
_ROW = 22  # height of a horizontal bar with its gap
_MOST_BARS = 60
_MOST_DOTS = 40
_DOT = 2.5
_CHARACTER = 6.6  # width of one, about

Point = tuple[float, float]
_ids = count(1)


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    format_y: Callable[[float], str] = number,
    baseline: float | None = None,
) -> Markup:
    """Return a chart of one line per name; points are (x, y) in the order of x.

    Args:
        baseline: A value to draw a dashed line at, which the axis then includes.
    """
    shown = {name: points for name, points in lines.items() if points}
    ys = [y for points in shown.values() for _, y in points] + ([] if baseline is None else [baseline])
    x, y = axis([x for points in shown.values() for x, _ in points], whole=True), axis(ys)
    parts = [_frame(x, y, x_label, format_y)]
    if baseline is not None:
        height = _y(y, baseline)
        parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=height, y2=height, class_="baseline"))
    for index, (name, points) in enumerate(shown.items()):
        parts.append(_line(index, name, points, x, y, format_y))
    return _figure(title, _svg(title, _line_words(shown, format_y), HEIGHT, *parts), _legend(list(shown)))


def _line(index: int, name: str, points: Sequence[Point], x: Axis, y: Axis, format_y: Callable[[float], str]) -> Markup:
    places = [(_x(x, at), _y(y, value)) for at, value in points]
    path = tag("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places), class_=f"line s{index}")
    if len(points) > _MOST_DOTS:
        return path
    dots = (
        tag("circle", _tip(f"{name}, {number(at)}: {format_y(value)}"), cx=a, cy=b, r=_DOT, class_=f"s{index}")
        for (a, b), (at, value) in zip(places, points, strict=True)
    )
    return join(path, *dots)


def stacked_bars(
    title: str,
    bars: Sequence[Mapping[str, float]],
    *,
    x_label: str,
    format_y: Callable[[float], str] = number,
    base: int = 10,
) -> Markup:
    """Return one bar per entry, numbered from 1, of the values by name, the first name at the bottom.

    More bars than fit are drawn as means of neighbours.
    """
    names = list(dict.fromkeys(name for bar in bars for name in bar))
    group = -(-len(bars) // _MOST_BARS)
    means = [_mean(bars[start : start + group], names) for start in range(0, len(bars), group)]
    y = axis([sum(bar.values()) for bar in means], zero=True, base=base)
    x = Axis(low=0.5, high=len(bars) + 0.5, ticks=axis([1, len(bars)], whole=True).ticks)
    parts = [_frame(x, y, x_label, format_y)]
    for place, bar in enumerate(means):
        first, last = place * group + 1, min((place + 1) * group, len(bars))
        label = f"{x_label} {first}" if first == last else f"{x_label}s {first} to {last}, on average"
        parts.append(_stack(bar, label, (first - 0.5, last + 0.5), x, y, format_y))
    words = f"{len(bars)} bars. In all: " + ", ".join(
        f"{name} {format_y(sum(bar.get(name, 0) for bar in bars))}" for name in names
    )
    return _figure(title, _svg(title, words, HEIGHT, *parts), _legend(names))


def _mean(bars: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    return {name: sum(bar.get(name, 0) for bar in bars) / len(bars) for name in names}


def _stack(
    bar: Mapping[str, float], label: str, span: Point, x: Axis, y: Axis, format_y: Callable[[float], str]
) -> Markup:
    left, right = _x(x, span[0]), _x(x, span[1])
    gap = min(0.15 * (right - left), 6)
    parts, bottom = [], 0.0
    for index, (name, value) in enumerate(bar.items()):
        top = bottom + value
        if value > 0:
            parts.append(
                tag(
                    "rect", _tip(f"{label}, {name}: {format_y(value)}"), class_=f"s{index}",
                    x=left + gap, width=right - left - 2 * gap, y=_y(y, top), height=_y(y, bottom) - _y(y, top),
                )
            )  # fmt: skip
        bottom = top
    return join(*parts)


def paired_bars(
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    *,
    format_x: Callable[[float], str] = number,
    base: int = 10,
) -> Markup:
    """Return horizontal bars, one group per row and one bar per name in it, each with its value beside it."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    left = _CHARACTER * max(map(len, rows), default=0) + 10
    right = _CHARACTER * max((len(format_x(v)) for row in rows.values() for v in row.values()), default=0) + 10
    x = axis([value for row in rows.values() for value in row.values()], zero=True, base=base)
    parts, top = [], 4.0
    for label, row in rows.items():
        middle = top + _ROW * 0.8 * len(names) / 2
        parts.append(tag("text", label, x=left - 6, y=middle, class_="end middle"))
        for index, name in enumerate(names):
            value = row.get(name, 0.0)
            end = x.place(value, left, WIDTH - right)
            at = top + index * _ROW * 0.8
            tip = _tip(f"{label}, {name}: {format_x(value)}")
            parts.append(
                tag("rect", tip, x=left, y=at, width=max(end - left, 1.0), height=_ROW * 0.7, class_=f"s{index}")
            )
            parts.append(tag("text", format_x(value), x=end + 5, y=at + _ROW * 0.35, class_="middle"))
        top += _ROW * 0.8 * len(names) + 10
    words = "; ".join(
        f"{label}: " + ", ".join(f"{name} {format_x(value)}" for name, value in row.items())
        for label, row in rows.items()
    )
    return _figure(title, _svg(title, words, top, *parts), _legend(names))


def _frame(x: Axis, y: Axis, x_label: str, format_y: Callable[[float], str]) -> Markup:
    parts = []
    for tick in y.ticks:
        height = _y(y, tick)
        parts.append(tag("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=height, y2=height, class_="grid"))
        parts.append(tag("text", format_y(tick), x=_LEFT - 6, y=height, class_="end middle"))
    low = HEIGHT - _BOTTOM + 14
    parts += [tag("text", number(tick), x=_x(x, tick), y=low, class_="centre") for tick in x.ticks]
    parts.append(tag("text", x_label, x=(_LEFT + WIDTH - _RIGHT) / 2, y=HEIGHT - 5, class_="centre label"))
    return join(*parts)


def _x(axis: Axis, value: float) -> float:
    return axis.place(value, _LEFT, WIDTH - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return axis.place(value, HEIGHT - _BOTTOM, _TOP)


def _tip(text: str) -> Markup:
    return tag("title", text)


def _svg(title: str, words: str, height: float, *parts: Markup) -> Markup:
    name = f"chart-{next(_ids)}"
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", words, id=f"{name}-words"),
        *parts,
        viewBox=f"0 0 {WIDTH} {height:.0f}",
        role="img",
        aria_labelledby=f"{name}-title {name}-words",
    )


def _figure(title: str, svg: Markup, legend: Markup) -> Markup:
    return tag("figure", tag("figcaption", title), legend, svg)


def _legend(names: Sequence[str]) -> Markup:
    items = (tag("li", tag("span", "", class_=f"key s{index}"), name) for index, name in enumerate(names))
    return tag("ul", *items, class_="legend")


def _line_words(lines: Mapping[str, Sequence[Point]], format_y: Callable[[float], str]) -> str:
    return "; ".join(
        f"{name} from {format_y(points[0][1])} to {format_y(points[-1][1])} over {len(points)} points"
        for name, points in lines.items()
    )
