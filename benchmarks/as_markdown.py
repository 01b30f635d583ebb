"""Prints tables that benchmarks have written with --json as Markdown, for a page of the docs.

python benchmarks/as_markdown.py FILE [--only WORDS] [--without COLUMN ...]
"""

import argparse
from pathlib import Path

import msgspec
from harness import Value, text_of

Row = dict[str, Value]


class Kept(msgspec.Struct, frozen=True):
    """What `Report` writes."""

    load: tuple[float, float, float]
    tables: dict[str, list[Row]]


def markdown(rows: list[Row], without: list[str]) -> str:
    """One table. Columns that say nothing are left out."""
    names = [n for n in rows[0] if n not in without and any(row[n] != "" for row in rows)]
    lines = [names, ["---", *("---:" for _ in names[1:])]]
    lines += [[text_of(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="tables with these in the title"
    )
    parser.add_argument("--without", nargs="*", default=[], metavar="COLUMN")
    asked = parser.parse_args()
    kept = msgspec.json.decode(asked.file.read_bytes(), type=Kept)
    print(f"load: {kept.load[1]:.1f}")
    for title, rows in kept.tables.items():
        if asked.only in title:
            print(f"\n{title}\n\n{markdown(rows, asked.without)}")


if __name__ == "__main__":
    main()
