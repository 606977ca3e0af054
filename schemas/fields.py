"""How columns and tables of an atlas are declared: with units and notes in their metadata."""

from __future__ import annotations

import pyarrow as pa

from vladmap.schemas import SCHEMA_VERSION


def field(
    name: str, kind: pa.DataType, unit: str = "", *, nullable: bool = False, note: str = ""
) -> pa.Field:
    """A column; its unit and note stand in its metadata."""
    metadata = {key: value for key, value in (("unit", unit), ("note", note)) if value}
    return pa.field(name, kind, nullable=nullable, metadata=metadata or None)


def table(name: str, fields: list[pa.Field], **metadata: str) -> pa.Schema:
    """The schema of a table of an atlas; name and schema version stand in its metadata."""
    return pa.schema(
        fields,
        metadata={"vladmap:table": name, "vladmap:schema_version": str(SCHEMA_VERSION), **metadata},
    )
