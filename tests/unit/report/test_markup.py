from graphsys.report.markup import Markup, join, tag


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    found = tag("p", "<b>&", Markup("<i>x</i>"), title='a"<b')
    assert found == '<p title="a&quot;&lt;b">&lt;b&gt;&amp;<i>x</i></p>'


def test_python_names_become_attribute_names() -> None:
    assert tag("a", 1, class_="x", aria_label="y", hidden=True, open=False, id=None) == (
        '<a class="x" aria-label="y" hidden>1</a>'
    )


def test_missing_parts_are_left_out_and_what_is_joined_is_markup() -> None:
    assert tag("p", join("<", None, tag("b", "x"))) == "<p>&lt;<b>x</b></p>"
