"""Evaluation: COCO average precision, matterport's metrics, speed, and the images with the lowest scores."""
