"""Synthetic images of squares, circles and triangles, with annotations."""
