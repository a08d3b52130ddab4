"""Tokens: who is let in, when one expires, and what happens when their file changes."""

import os
from pathlib import Path

import pytest

from graphsys.core.errors import ConfigError
from graphsys.deploy.serving.auth import Tokens, is_loopback, make_tokens, read_tokens
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.settings import ServeSettings

GOOD = "a-long-enough-token"


def refused(tokens: Tokens, header: str | None) -> str:
    with pytest.raises(Problem) as caught:
        tokens.check(header)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith('Bearer realm="graphsys"')
    return caught.value.detail


def tokens_of(tmp_path: Path, text: str) -> Tokens:
    (tmp_path / "tokens").write_text(text)
    return make_tokens(ServeSettings(token_file=tmp_path / "tokens"), {})


def test_a_token_of_the_file_is_let_in_and_any_other_is_not(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, f"# ours\n{GOOD}\nanother-long-token 2999-01-01\n")
    tokens.check(f"Bearer {GOOD}")
    tokens.check(b"bearer another-long-token")
    assert "Authorization: Bearer" in refused(tokens, None)
    assert "Authorization: Bearer" in refused(tokens, f"Basic {GOOD}")
    assert "not one of this server's" in refused(tokens, f"Bearer {GOOD}x")
    assert "not one of this server's" in refused(tokens, "Bearer \xff")


def test_an_expired_token_is_told_so(tmp_path: Path) -> None:
    tokens = tokens_of(tmp_path, f"{GOOD} 2020-01-01T00:00:00Z\n")
    assert "expired at 2020-01-01" in refused(tokens, f"Bearer {GOOD}")


def test_a_changed_file_is_read_again_and_a_broken_one_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphsys.deploy.serving.auth.LOOK_S", 0)
    tokens = tokens_of(tmp_path, GOOD)
    new = tmp_path / "new"
    new.write_text("the-token-that-follows")
    new.replace(tmp_path / "tokens")
    tokens.check("Bearer the-token-that-follows")
    assert "not one of" in refused(tokens, f"Bearer {GOOD}")
    (tmp_path / "tokens").write_text("short")
    tokens.check("Bearer the-token-that-follows")
    (tmp_path / "tokens").unlink()
    tokens.check("Bearer the-token-that-follows")


def test_the_environment_holds_one_token_and_without_any_everybody_is_let_in() -> None:
    tokens = make_tokens(ServeSettings(), {"GRAPHSYS_TOKEN": GOOD})
    tokens.check(f"Bearer {GOOD}")
    refused(tokens, "Bearer nothing-of-the-kind")
    make_tokens(ServeSettings(), {}).check(None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("short", "line 1: the token has 5 characters; at least 16"),
        (f"\n{GOOD} tomorrow", "line 2: the expiry 'tomorrow' is no date"),
        ("# nothing\n", "holds no token"),
    ],
)
def test_a_wrong_token_file_is_refused_without_naming_a_token(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_tokens(tmp_path / "tokens")
    assert GOOD not in str(caught.value)


def test_binary_rubbish_is_no_token_file(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(os.urandom(8) + b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no text"):
        read_tokens(tmp_path / "tokens")


def test_listening_beyond_this_machine_needs_a_token_or_a_word() -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        make_tokens(ServeSettings(host="0.0.0.0"), {})
    make_tokens(ServeSettings(host="0.0.0.0", insecure=True), {})
    make_tokens(ServeSettings(host="0.0.0.0"), {"GRAPHSYS_TOKEN": GOOD})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("example.org", False), ("10.0.0.1", False)],
)  # fmt: skip
def test_what_counts_as_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_the_first_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a-long-enough-token\r\n", encoding="utf-8-sig")
    Tokens(read_tokens(tmp_path / "tokens")).check("Bearer a-long-enough-token")
