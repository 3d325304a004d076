"""`gradpot data list` and `gradpot data fetch`: public data sets by name."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from gradpot.cli import Json, data_app, say


@data_app.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the data sets that have a name, and whether they are here."""
    from gradpot.data.catalog import catalog

    if as_json:
        print(json.dumps([_describe(entry) for entry in catalog.entries().values()], indent=1))
        return
    _print_table(list(catalog.entries().values()))
    say(f"files are kept in {catalog.default_folder()}; `gradpot data fetch NAME` downloads one")


@data_app.command("fetch")
def fetch_set(
    name: Annotated[str, typer.Argument(help="such as rmd17:ethanol; see `gradpot data list`")],
    to: Annotated[
        Path | None, typer.Option("--to", help="folder; default: the cache, or GRADPOT_DATA")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a data set and print where it is; compares checksums.

    A transfer that was interrupted goes on where it stopped. Without access to
    the internet the message says what to download and where to put it;
    GRADPOT_DATA_MIRROR names a server of your own.
    """
    from gradpot.data.catalog import catalog

    path = catalog.fetch(name, to, progress=not as_json)
    entry = catalog.find(name)
    if as_json:
        print(json.dumps({**_describe(entry), "path": str(path)}, indent=1))
        return
    say(f"{entry.theory}, energies in {entry.energy_unit}, lengths in {entry.length_unit}")
    say(f"cite: {entry.citation}")
    say(f"license: {entry.license}")
    if entry.urls and entry.checksum is None:
        say(f"nobody publishes a checksum of this file; its own is now in {path}.sha256")
    print(path)


def _describe(entry) -> dict:
    from gradpot.data.catalog import catalog

    fields = entry._asdict()
    fields["archive"] = entry.archive and entry.archive._asdict()
    path = catalog.path_of(entry)
    return {**fields, "path": str(path) if path.exists() else None}


def _print_table(entries: list) -> None:
    from rich.console import Console
    from rich.table import Table

    from gradpot.data.catalog import catalog

    table = Table(box=None, header_style="bold")
    table.add_column("name", no_wrap=True)
    for heading in ("frames", "atoms"):
        table.add_column(heading, justify="right")
    for heading in ("energy", "theory", "license", "checksum", "here"):
        table.add_column(heading)
    for entry in entries:
        table.add_row(
            entry.name,
            f"{entry.frames:,}" if entry.frames else "?",
            str(entry.atoms or "?"),
            entry.energy_unit,
            entry.theory,
            entry.license.partition(",")[0],
            "known" if entry.checksum else "with package" if not entry.urls else "at first fetch",
            "yes" if catalog.path_of(entry).exists() else "",
        )
    width = None if sys.stdout.isatty() else 132
    Console(width=width).print(table)
