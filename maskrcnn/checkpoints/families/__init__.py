"""Mask R-CNNs of torchvision, Detectron2 and MMDetection: which one a state dict is, its configuration, its weights."""
