"""Files of PyTorch programs, read without PyTorch and without running anything in them: weights and configurations."""
