"""A look inside: every step of detection, training data and weights as pictures, charts, numbers and one HTML page."""
