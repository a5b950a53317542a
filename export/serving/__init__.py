"""Folders that servers load as they are: an artifact in a layout of Triton or TensorFlow Serving."""
