"""Annotated pictures: readers, checks, augmentation, and the batches that training eats."""
