"""The files of the page: our own, and Plotly as its package on PyPI carries it."""

import gzip
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files

import xxhash

from graphsys.core.errors import ArtefactError

PLOT_NAME = "plotly.min.js"
PLOT_PAGE = "plot.html"
# The page loads from its own server and from nowhere else; no script or style stands in the page itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Plotly makes functions and styles from text. It may do so in a frame that has no origin and reaches no network.
PLOT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_LEAST_PACKED = 1024  # bytes; smaller files are sent as they are
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"  # kept, but compared by its tag before each use


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file, ready to be sent."""

    body: bytes
    packed: bytes | None  # gzip; None where that gains nothing
    media_type: str
    etag: str
    keep: str  # the Cache-Control header
    policy: str  # the Content-Security-Policy header


@cache
def assets() -> dict[str, Asset]:
    """Return every file of the page by name; ``index.html`` is the page itself.

    Raises:
        ArtefactError: The package ``plotly`` carries no script.
    """
    plot = _plot_script()
    folder = files("graphsys.deploy.serving").joinpath("page")
    contents = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.rpartition(".")[2] in _TYPES}
    contents[PLOT_PAGE] = _filled(contents[PLOT_PAGE], plot)
    own = {name: _asset(name, body, _ASK_AGAIN) for name, body in contents.items()}
    return {**own, PLOT_NAME: _asset(PLOT_NAME, plot, _FOR_EVER)}


def _plot_script() -> bytes:
    path = files("plotly").joinpath("package_data", PLOT_NAME)
    if not path.is_file():
        raise ArtefactError(f"the package plotly {version('plotly')} has no {PLOT_NAME}; install plotly>=6 again")
    return path.read_bytes()


def _filled(page: bytes, plot: bytes) -> bytes:
    """Name the script by its content, so that it may be kept for ever."""
    script = f"/page/{PLOT_NAME}?v={xxhash.xxh3_64(plot).hexdigest()}".encode()
    return page.replace(b"{{plot_script}}", script)


def _asset(name: str, body: bytes, keep: str) -> Asset:
    packed = gzip.compress(body, 6, mtime=0) if len(body) >= _LEAST_PACKED else None
    return Asset(
        body=body,
        packed=packed if packed is not None and len(packed) < len(body) else None,
        media_type=f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8",
        etag=f'"{xxhash.xxh3_128(body).hexdigest()}"',
        keep=keep,
        policy=PLOT_POLICY if name == PLOT_PAGE else POLICY,
    )
