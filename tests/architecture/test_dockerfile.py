"""The Dockerfile keeps to what hadolint asks for; each rule is seen to find its own breach."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Instructions = list[tuple[str, str]]  # name, the rest of its line


def parse(text: str) -> Instructions:
    """Return the instructions of a Dockerfile, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    pairs = [line.strip().partition(" ") for line in joined if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in pairs]


def of(name: str, file: Instructions) -> list[str]:
    return [rest for found, rest in file if found == name]


def unpinned_base(file: Instructions) -> bool:
    """DL3006, DL3007: a base image has a full version."""
    return not all(re.match(r"\S+:\d+\.\d+\.\d+[\w.-]*( AS \w+)?$", rest) for rest in of("FROM", file))


def root_at_the_end(file: Instructions) -> bool:
    """DL3002: the last user is not root."""
    return (of("USER", file) or ["root"])[-1] in ("root", "0")


def apt_leaves_its_lists(file: Instructions) -> bool:
    """DL3009: lists go in the layer that fetched them."""
    return any("apt-get update" in run and "rm -rf /var/lib/apt/lists/*" not in run for run in of("RUN", file))


def apt_installs_more_than_asked(file: Instructions) -> bool:
    """DL3014, DL3015: --yes and --no-install-recommends."""
    installs = [run for run in of("RUN", file) if "apt-get install" in run]
    return not all("--yes" in run and "--no-install-recommends" in run for run in installs)


def pip_keeps_a_cache(file: Instructions) -> bool:
    """DL3042: --no-cache-dir."""
    return any("pip install" in run and "--no-cache-dir" not in run for run in of("RUN", file))


def pip_chooses_versions(file: Instructions) -> bool:
    """DL3013: versions come from a pin or from the constraints."""
    installs = [run for run in of("RUN", file) if "pip install" in run]
    return not all("constraints.txt" in run or "==" in run for run in installs)


def several_concerns_in_a_run(file: Instructions) -> bool:
    """A step fetches system packages, installs with pip, or makes users: one of these."""
    concerns = ("apt-get", "pip install", "useradd", "python -m venv", "ln -s")
    return any(sum(concern in run for concern in concerns) != 1 for run in of("RUN", file))


def shell_form(file: Instructions) -> bool:
    """DL3025: ENTRYPOINT and CMD are JSON, so that signals reach the program."""
    health = [rest.partition("CMD ")[2] for rest in of("HEALTHCHECK", file)]
    return any(not is_json(rest) for rest in (*of("ENTRYPOINT", file), *of("CMD", file), *health))


def is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def no_health_check(file: Instructions) -> bool:
    """One HEALTHCHECK, on the address that tells whether the process lives."""
    return [("/health/live" in rest) for rest in of("HEALTHCHECK", file)] != [True]


def adds_or_cds(file: Instructions) -> bool:
    """DL3000, DL3003, DL3004, DL3020: COPY rather than ADD, absolute WORKDIR, no cd, no sudo."""
    moves = any(re.search(r"\b(cd|sudo)\b", run) for run in of("RUN", file))
    return bool(of("ADD", file)) or moves or not all(rest.startswith("/") for rest in of("WORKDIR", file))


def pipes_without_pipefail(file: Instructions) -> bool:
    """DL4006: a failure inside a pipe or a substitution fails the step."""
    uses = any(re.search(r"(?<!\|)\|(?!\|)|\$\(", run) for run in of("RUN", file))
    return uses and not any("pipefail" in rest for rest in of("SHELL", file))


def holds_a_secret(file: Instructions) -> bool:
    """No token, password or key is written in or passed while building."""
    return any(re.search(r"(?i)token|password|secret|api_?key", rest) for name, rest in file if name in ("ARG", "ENV"))


RULES: dict[Callable[[Instructions], bool], str] = {
    unpinned_base: "FROM python:3.11",
    root_at_the_end: "FROM a:1.2.3\nUSER root",
    apt_leaves_its_lists: "RUN apt-get update && apt-get install --yes --no-install-recommends g++",
    apt_installs_more_than_asked: "RUN apt-get install --yes g++",
    pip_keeps_a_cache: "RUN pip install a==1",
    pip_chooses_versions: "RUN pip install --no-cache-dir a",
    several_concerns_in_a_run: "RUN apt-get update \\\n  && pip install a",
    shell_form: "ENTRYPOINT graphsys serve",
    no_health_check: "FROM a:1.2.3",
    adds_or_cds: "RUN cd /tmp",
    pipes_without_pipefail: "RUN cat a | sh",
    holds_a_secret: "ENV GRAPHSYS_TOKEN=abc",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_dockerfile_keeps_to_the_rule(rule: Callable[[Instructions], bool]) -> None:
    assert rule(parse(RULES[rule])), "the rule finds nothing"
    assert not rule(parse((ROOT / "Dockerfile").read_text(encoding="utf-8"))), rule.__doc__


def test_the_image_is_made_from_the_wheel_and_the_pins_alone() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert [line for line in ignored if line and not line.startswith("#")] == [
        "*",
        "!constraints.txt",
        "!dist/graphsys-*.whl",
    ]
    copied = of("COPY", parse((ROOT / "Dockerfile").read_text(encoding="utf-8")))
    assert copied[0].split()[:-1] == ["constraints.txt", "dist/graphsys-*.whl"]
