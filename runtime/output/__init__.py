"""Detections as documents and images."""
