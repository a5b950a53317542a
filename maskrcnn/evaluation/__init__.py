"""Evaluation: COCO average precision, matterport's measures, and the worst pictures to look at."""
