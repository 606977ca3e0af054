"""Writes the tables of docs/atlas.md from the schemas: `python -m vladmap.schemas.describe`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from vladmap.schemas import localisation_tables, loop_tables, tables, truth_tables

PAGE = Path(__file__).parents[1] / "docs" / "atlas.md"
BEGIN = "<!-- From schemas/ by `python -m vladmap.schemas.describe`: change it there. -->"
END = "<!-- End of what is generated. -->"

FOLDERS = {
    "images": "images/",
    "rejects": "rejects/",
    "unregistered": "unregistered.parquet",
    "descriptors": "descriptors/",
    "patches": "patches/",
    "features": "features/",
    "pairs": "pairs/",
    "two_views": "two_views/",
    "index_ids": "index/<model>/ids.parquet",
    "poses": "poses.parquet",
    "loops": "loops.parquet",
    "drives": "drives.parquet",
    "coverage": "coverage.parquet",
    "localisations": "localisations/ (where `vladmap localise --output` puts it)",
    "truth": "truth.parquet (beside a sample, not in the atlas)",
    "truth_pairs": "truth_pairs.parquet (beside a network, not in the atlas)",
}
"""The path of each table, in the order of the page."""

# Schemas with parameters (dimension, model, ...); the values here do not appear on the page.
_PARAMETRISED = (
    tables.descriptors(1, "", ""),
    tables.patches("", "", 1, 1, 1),
    tables.features("", 1, pa.uint8()),
)
_TYPE_NAMES = {
    pa.list_(pa.float32(), 1): "float[dimension]",
    pa.list_(pa.list_(pa.uint8(), 1)): "list<uint8[dimension] or float[dimension]>",
    pa.list_(pa.list_(pa.float32(), 4)): "list<float[4]>",
    pa.list_(pa.list_(pa.uint32(), 2)): "list<uint32[2]>",
    pa.list_(pa.float64()): "list<double>",
    pa.list_(pa.float32()): "list<float>",
    pa.list_(pa.string()): "list<string>",
}


def schemas() -> dict[str, pa.Schema]:
    """Every table's schema by its name."""
    constants = [
        schema
        for module in (tables, loop_tables, truth_tables, localisation_tables)
        for schema in vars(module).values()
        if isinstance(schema, pa.Schema)
    ]
    return {
        schema.metadata[b"vladmap:table"].decode(): schema
        for schema in [*constants, *_PARAMETRISED]
    }


def markdown() -> str:
    """A heading and a table of columns for each schema; KeyError for one that FOLDERS lacks."""
    parts = [BEGIN]
    for name, schema in sorted(schemas().items(), key=lambda item: [*FOLDERS].index(item[0])):
        rows = [
            f"| `{field.name}` | {_kind(field.type)} | {_metadata(field, 'unit')} | "
            f"{'yes' if field.nullable else ''} | {_metadata(field, 'note')} |"
            for field in schema
        ]
        head = ["| column | type | unit | may be null | what |", "|---|---|---|---|---|"]
        parts.append("\n".join([f"### {FOLDERS[name]}", "", *head, *rows]))
    return "\n\n".join([*parts, END])


def updated(page: str) -> str:
    """The page with its tables replaced by those of the schemas.

    Raises ValueError where the page lacks the lines BEGIN and END around them.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the lines between which its tables stand")
    return before + markdown() + after


def _kind(kind: pa.DataType) -> str:
    if kind in _TYPE_NAMES:
        return _TYPE_NAMES[kind]
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(kind.field(i).name for i in range(kind.num_fields))}>"
    return str(kind)


def _metadata(field: pa.Field, key: str) -> str:
    return (field.metadata or {}).get(key.encode(), b"").decode().replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
