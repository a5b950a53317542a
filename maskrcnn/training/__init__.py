"""Training: targets and losses in a graph, `keras.Model.fit`, and runs that can be killed and resumed."""
