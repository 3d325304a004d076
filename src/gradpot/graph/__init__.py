"""Frames → graphs: what a model sees, one structure or a batch of them."""

from gradpot.graph.graph import Graph, Properties, both_ways, from_atoms, join, opposite

__all__ = ["Graph", "Properties", "both_ways", "from_atoms", "join", "opposite"]
