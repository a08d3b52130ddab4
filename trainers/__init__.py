"""Packed batches to trained models to embeddings."""

import os

# torch's threads spin while they wait for each other, and take the cores from the threads that load and sample: on two
# cores an epoch took a quarter longer, and ten times as long beside other busy processes. Sleeping costs next to
# nothing. The setting counts only when it is there before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
