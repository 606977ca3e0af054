"""The tables of docs/atlas.md, made from the schemas: `python -m vladmap.schemas.describe`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from vladmap.schemas import tables

PAGE = Path(__file__).parents[1] / "docs" / "atlas.md"
BEGIN = "<!-- From schemas/tables.py by `python -m vladmap.schemas.describe`: change it there. -->"
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
    "coverage": "coverage.parquet",
    "truth": "truth.parquet (beside a sample, not in the atlas)",
}
"""Where each table lies, in the order of the page."""

# The models and detectors give these their numbers.
_OF_MODELS = (
    tables.descriptors(1, "", ""),
    tables.patches("", "", 1, 1, 1),
    tables.features("", 1, pa.uint8()),
)
_WORDS = {
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
    found = [schema for schema in vars(tables).values() if isinstance(schema, pa.Schema)]
    return {schema.metadata[b"vladmap:table"].decode(): schema for schema in [*found, *_OF_MODELS]}


def markdown() -> str:
    """A heading and a table of columns for each table; KeyError for one without a place."""
    parts = [BEGIN]
    for name, schema in sorted(schemas().items(), key=lambda item: [*FOLDERS].index(item[0])):
        rows = [
            f"| `{field.name}` | {_kind(field.type)} | {_said(field, 'unit')} | "
            f"{'yes' if field.nullable else ''} | {_said(field, 'note')} |"
            for field in schema
        ]
        head = ["| column | type | unit | may be null | what |", "|---|---|---|---|---|"]
        parts.append("\n".join([f"### {FOLDERS[name]}", "", *head, *rows]))
    return "\n\n".join([*parts, END])


def updated(page: str) -> str:
    """The page with its tables as the schemas have them. Raises ValueError where it has no place
    for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the lines between which its tables stand")
    return before + markdown() + after


def _kind(kind: pa.DataType) -> str:
    if kind in _WORDS:
        return _WORDS[kind]
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(kind.field(i).name for i in range(kind.num_fields))}>"
    return str(kind)


def _said(field: pa.Field, key: str) -> str:
    return (field.metadata or {}).get(key.encode(), b"").decode().replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
