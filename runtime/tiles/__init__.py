"""Large images in tiles: where the tiles are, what is found in each, and how that becomes the objects of the image."""
