"""How long artifacts take: one by step and operator, and several in all engines beside their accuracy."""
