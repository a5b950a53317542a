"""Configurations of models and of their training, and the files that store them."""
