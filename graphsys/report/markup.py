"""HTML and SVG from Python calls; whatever is not markup already is escaped."""

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: "str | int | None", **attributes: "str | float | bool | None") -> Markup:
    """Return an element; a child of None, and an attribute of None or False, is left out.

    Args:
        children: Text, which is escaped, and :class:`Markup`, which is not.
        attributes: A trailing underscore is dropped (``class_``), other underscores become hyphens (``aria_label``).
    """
    named = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        if value is True
        else f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{named}>{join(*children)}</{name}>")


def join(*children: "str | int | None") -> Markup:
    """Return the children one behind the other, escaped where they are no markup."""
    parts = (child if isinstance(child, Markup) else escape(str(child)) for child in children if child is not None)
    return Markup("".join(parts))


def _value(value: str | float) -> str:
    return escape(f"{value:.6g}" if isinstance(value, float) else str(value))
