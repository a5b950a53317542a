"""What is wrong with an environment or an artifact here, and the command that mends it."""
