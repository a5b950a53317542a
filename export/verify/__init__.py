"""Artifacts compared with the model that they were made of."""
