"""Stage boundary tensors of a model or an artifact, and activations of layers."""
