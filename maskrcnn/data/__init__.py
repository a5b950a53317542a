"""Datasets: readers, checks, augmentation, and batches for training."""
