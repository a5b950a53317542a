"""OpenVINO, for `.onnx` artifacts."""
