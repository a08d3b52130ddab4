"""Packed batches to trained models to embeddings."""
