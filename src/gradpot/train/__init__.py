"""Training on energies, forces and stress."""
