"""What lies on disk and how it is read."""

import os
import sys

# Memory budgets are kept only where Arrow gives back what it frees. Of its allocators jemalloc can do so at once
# (arrow_memory.py), and Arrow's own code chooses from here, as it is loaded.
if sys.platform == "linux":
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
