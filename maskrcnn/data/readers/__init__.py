"""Annotation files to records."""
