"""Images, from bytes to the input of the network."""
