"""Clusters and services: what uses a trained model or its embeddings."""
