"""Pictures of squares, circles and triangles, with their annotations."""
