"""`gradpot data list` and `gradpot data fetch`: public data sets by name."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradpot.cli import Json, data_app, print_json, say
from gradpot.data.catalog import catalog

# width in characters of a table written to a file, wide enough for one line per row
WIDTH_OF_A_FILE = 132
# columns that a narrow terminal has no room for, in this order; --json has them all
DROPPED = ("license", "checksum", "theory", "atoms", "energy", "here")


@data_app.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the public data sets, and which are downloaded."""
    entries = list(catalog.entries().values())
    if as_json:
        print_json([_describe(entry) for entry in entries], indent=1)
        return

    from rich.console import Console
    from rich.table import Table

    rows = []
    for entry in entries:
        unknown = "at first fetch" if entry.urls else "included"
        row = {
            "name": entry.name,
            "frames": f"{entry.frames:,}" if entry.frames else "?",
            "atoms": str(entry.atoms or "?"),
            "energy": entry.energy_unit,
            "theory": entry.theory,
            "license": entry.license.partition(",")[0],
            "checksum": "known" if entry.checksum else unknown,
            "here": "yes" if catalog.path_of(entry).exists() else "",
        }
        rows.append(row)
    console = Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    for n_dropped in range(len(DROPPED) + 1):
        table = Table(box=None, header_style="bold")
        columns = [name for name in rows[0] if name not in DROPPED[:n_dropped]]
        for name in columns:
            right = name in ("frames", "atoms")
            table.add_column(name, justify="right" if right else "left", no_wrap=name == "name")
        for row in rows:
            table.add_row(*(row[name] for name in columns))
        unlimited = console.options.update(max_width=WIDTH_OF_A_FILE)
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
    console.print(table)
    if any(row["checksum"] == "at first fetch" for row in rows):
        say(
            "checksum at first fetch: none is published, so gradpot notes that of your first "
            "download and compares later ones with it"
        )
    say(f"to download into {catalog.default_folder()}: gradpot data fetch NAME")


@data_app.command("fetch")
def fetch_set(
    name: Annotated[str, typer.Argument(help="A name from `gradpot data list`: rmd17:ethanol")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder; default: GRADPOT_DATA, or the cache")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a data set, verify its checksum, and print its path.

    An interrupted download resumes where it stopped. Without access to the
    internet, the error says what to download and where to put it. Set
    GRADPOT_DATA_MIRROR to download from a server of your own.

    Example: gradpot data fetch rmd17:ethanol
    """
    path = catalog.fetch(name, to, progress=not as_json)
    entry = catalog.find(name)
    if as_json:
        print_json({**_describe(entry), "path": str(path)}, indent=1)
        return
    say(f"{entry.theory}, energies in {entry.energy_unit}, lengths in {entry.length_unit}")
    say(f"cite: {entry.citation}")
    say(f"license: {entry.license}")
    if entry.urls and entry.checksum is None:
        say(f"no checksum is published for this file; yours is in {path}.sha256")
    print(path)


def _describe(entry: catalog.Entry) -> dict:
    """What --json prints for a catalog entry; "path" is null until the set is downloaded."""
    fields = entry._asdict()
    fields["archive"] = entry.archive and entry.archive._asdict()
    path = catalog.path_of(entry)
    return {**fields, "path": str(path) if path.exists() else None}
