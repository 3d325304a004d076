"""Machine code for the training step (`step`) and for potentials in files (`export`, `package`)."""
