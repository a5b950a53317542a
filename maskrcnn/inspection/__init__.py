"""Inspect every step of detection, the training data and the weights, on one HTML page and in TensorBoard."""
