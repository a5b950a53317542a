"""Weights files: our checkpoints, matterport's, and ImageNet backbones."""
