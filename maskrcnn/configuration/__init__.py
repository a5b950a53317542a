"""What a model is, how it is trained, and the files that say so."""
