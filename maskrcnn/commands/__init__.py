"""The commands of `maskrcnn`, a file each: parse, call one function, print."""
