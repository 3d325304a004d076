"""Tensors only: the parts that networks are made of; nothing here knows atoms, cells or units."""
