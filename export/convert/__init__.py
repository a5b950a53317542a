"""The Keras model to a TensorFlow graph, and that to ONNX."""
