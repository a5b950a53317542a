"""Detections as documents and pictures."""
