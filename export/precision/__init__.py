"""ONNX files in lower precision."""
