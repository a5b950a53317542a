"""The commands of `maskrcnn`, one file each: parse arguments, call one function, print the result."""
