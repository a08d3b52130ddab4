"""Whether reads may go through io_uring here."""

from graphsys.storage.ring import open_ring


def has_rings() -> bool:
    """Return whether liburing is installed and the kernel allows a ring."""
    ring = open_ring(4096)
    if ring is not None:
        ring.close()
    return ring is not None
