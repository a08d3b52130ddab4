"""Benchmarks of every stage: our figure, the machine's limit and, where they are installed, the peers' figures."""
