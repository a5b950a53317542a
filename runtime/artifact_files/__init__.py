"""Artifacts as bytes: read, sealed and scanned before an engine sees them."""
