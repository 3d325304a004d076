"""Readers: a file of each format → `Raw`. They convert and check nothing."""
