from pathlib import Path

import pytest

from graphsys.deploy.serving.settings import ServeSettings


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://127.0.0.1:80"),
        ({"host": "::1"}, "http://[::1]:80"),
        ({"host": "a.example", "tls_cert": Path("chain.pem")}, "https://a.example:80"),
    ],
)
def test_the_url_says_how_to_connect_and_has_version_6_addresses_in_brackets(
    values: dict[str, object], url: str
) -> None:
    assert ServeSettings.model_validate(values).url(80) == url
