"""The bricks of the page's parts: sections, tables, what is folded away."""

from collections.abc import Iterable, Sequence

from graphsys.report.markup import Markup, tag


def section(title: str, *content: Markup | None) -> Markup:
    """Return a part of the page with its heading."""
    name = title.lower().replace(" ", "-")
    return tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)


def charts(*content: Markup | None) -> Markup:
    """Return charts side by side."""
    return tag("div", *content, class_="charts")


def details(title: str, part: Markup) -> Markup:
    """Return what is folded away."""
    return tag("details", tag("summary", title), part)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Markup:
    """Return a table that scrolls sideways where it is too wide; the first ``left`` columns are text."""
    top = tag("thead", tag("tr", *(_cell(name, index, left, "col") for index, name in enumerate(head))))
    body = (tag("tr", *(_cell(cell, index, left, "row") for index, cell in enumerate(row))) for row in rows)
    # Without a head, it pairs names with values of any length, such as paths.
    kind = None if any(head) else "pairs"
    whole = tag("table", tag("caption", caption), top if any(head) else None, tag("tbody", *body), class_=kind)
    return tag("div", whole, class_="wide", tabindex="0", role="region", aria_label=caption)


def _cell(text: str, index: int, left: int, scope: str) -> Markup:
    """Return a cell; those of the head row and of the first column name the others."""
    names = scope == "col" or index == 0
    kind = None if index < left else "figure"
    return tag("th" if names else "td", text, scope=scope if names else None, class_=kind)
