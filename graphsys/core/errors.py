"""One root for every error a user can cause or meet.

A message names the object, what was found, what was expected, and the next step. The command line prints it as one
sentence and ends with exit code 2; after a :class:`ClusterError`, which nothing in the input caused, with 1.
"""


class GraphsysError(Exception):
    """Root of all errors that graphsys raises on purpose."""


class ConfigError(GraphsysError):
    """A run file, an option or an argument is wrong."""


class InputError(GraphsysError):
    """A raw file or array that the user gave cannot be used."""


class NodeIdError(GraphsysError):
    """A node id is outside the graph, or an external id is unknown or given twice."""


class ArtefactError(GraphsysError):
    """A path does not hold the artefact that was expected there."""


class FormatVersionError(ArtefactError):
    """An artefact was written by a newer format than this program reads."""


class CorruptError(ArtefactError):
    """The bytes on disk are not the bytes that were written."""


class StaleArtefactError(ArtefactError):
    """An artefact was made from another parent or with another configuration."""


class MemoryBudgetError(GraphsysError):
    """The memory budget is too small for a stage to work; the message says what would do."""


class DiskError(GraphsysError):
    """The operating system refused a read or a write (full disk, no permission, missing path)."""


class ClusterError(GraphsysError):
    """Workers, or the cluster they ran on, were lost while they worked; what they had saved is still there."""


class DetachedError(GraphsysError):
    """The user left a job that goes on elsewhere.

    Args:
        terminated: By SIGTERM, and not by Ctrl-C.
    """

    def __init__(self, text: str, *, terminated: bool) -> None:
        super().__init__(text)
        self.terminated = terminated


def first_line(error: BaseException) -> str:
    """Return the first line of what a library's error says, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
