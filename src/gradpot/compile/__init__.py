"""Machine code: of the training step (`step`), and of a potential, in a file (`export`)."""
