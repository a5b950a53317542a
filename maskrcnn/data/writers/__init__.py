"""Writers of annotation files that refer to the original images."""
