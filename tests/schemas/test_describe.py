"""The page of the atlas's columns (issue 19, 23)."""

from __future__ import annotations

import pytest

from vladmap.schemas import tables
from vladmap.schemas.describe import FOLDERS, PAGE, markdown, schemas, updated


def test_the_page_lists_every_column_as_the_schemas_have_it():
    """Issue 19, 23: it is up to date; `python -m vladmap.schemas.describe` makes it so."""
    page = PAGE.read_text()
    assert updated(page) == page


def test_every_table_has_its_columns_with_types_units_and_notes():
    """Issue 19, 23: the docs promised every column and listed none of images/."""
    text = markdown()
    assert set(schemas()) == set(FOLDERS)
    parts = dict(part.split("\n", 1) for part in text.split("### ")[1:])
    for name, schema in schemas().items():
        for column in schema.names:
            assert f"| `{column}` |" in parts[FOLDERS[name]]
    assert "| `latitude` | double | degree | yes | WGS84 |" in parts["images/"]


def test_every_column_of_images_says_what_it_is():
    for field in tables.IMAGES:
        assert field.metadata, field.name


def test_a_page_without_the_lines_is_an_error():
    with pytest.raises(ValueError, match="lacks the lines"):
        updated("# Another page\n")
