"""Frames → graphs: what a model sees, one structure or a batch of them."""
