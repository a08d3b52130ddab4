"""Seeds to sampled batches, offline and online."""
