"""Packed batches to trained models to embeddings."""

import os

# torch's threads spin while they wait for each other, and take the cores from the threads that load and sample: on two
# cores an epoch took a quarter longer, and ten times as long beside other busy processes. Sleeping costs next to
# nothing. The setting counts only when it is there before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Matrix products that give the same bits for any number of threads, where MKL makes them; nearly free. Without it two
# threads split sums in other places than one. Read at MKL's first call.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# Large tensors in pages of 2 MiB: a fresh one of 200 MB then takes half the time to fill. Read at torch's first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
