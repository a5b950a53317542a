"""What every run needs, whatever it does: its folder for itself, and an end when it is asked to stop."""
