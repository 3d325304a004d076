"""From files to `Frames`: labeled structures as arrays."""
