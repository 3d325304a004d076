"""From files to labeled graphs."""
