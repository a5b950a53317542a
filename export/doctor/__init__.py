"""What is wrong with an environment or an artifact on this machine, and the command that fixes it."""
