"""The tensors between the stages of a model or an artifact."""
