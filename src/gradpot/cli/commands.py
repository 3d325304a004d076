"""Import every group of commands, which adds them to `app` in the order of the help."""

import importlib

for _group in ("train", "md", "compile", "label", "data", "catalog"):
    importlib.import_module(f"gradpot.cli.{_group}")
