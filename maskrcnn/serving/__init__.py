"""An artifact behind HTTP: the Open Inference Protocol V2, and `POST /predict` for `curl`."""
