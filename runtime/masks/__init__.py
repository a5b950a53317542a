"""Masks in the frame of an image: pasted, run-length encoded, as polygons."""
