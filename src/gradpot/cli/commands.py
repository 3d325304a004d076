"""Every group of commands, imported for its effect on `app`; each is a file of its own."""

import importlib

for _group in ("train", "md", "compile", "label", "data", "catalog"):
    importlib.import_module(f"gradpot.cli.{_group}")
