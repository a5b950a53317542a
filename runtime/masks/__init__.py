"""Masks in the frame of a picture: pasted, run-length encoded, as polygons."""
