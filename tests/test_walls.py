"""The rooms' walls: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ALLOWED = {
    "schemas": set(),
    "photos": {"schemas"},
    "simulation": {"schemas", "photos"},
    "retrieval": {"schemas", "photos"},
    "mapping": {"schemas", "photos", "models"},
    "models": {"schemas", "photos", "retrieval", "mapping"},
    "reporting": {"schemas", "photos"},
    "transforms": {
        "schemas",
        "photos",
        "simulation",
        "retrieval",
        "mapping",
        "models",
        "reporting",
    },
}
ALLOWED["pipeline"] = ALLOWED["transforms"] | {"transforms"}
ALLOWED["jobs"] = ALLOWED["pipeline"] | {"pipeline"}

HOMES = {
    "apache_beam": {"transforms", "pipeline", "jobs"},
    "pycolmap": {"mapping"},
    "faiss": {"retrieval"},
    "torch": {"models", "simulation", "retrieval"},
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(top-level package, whether it is imported when the module is) of each import in a file."""
    tree = ast.parse(path.read_text())
    lazy = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        else:
            continue
        found.extend((name.partition(".")[0], id(node) not in lazy) for name in names)
    return found


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        for package, _ in imports(path):
            if package in ALLOWED and package != room:
                assert package in ALLOWED[room], f"{path.relative_to(ROOT)} imports {package}"


@pytest.mark.parametrize("package", sorted(HOMES))
def test_a_library_is_imported_in_its_own_room_alone(package: str) -> None:
    for room in ALLOWED:
        if room not in HOMES[package]:
            for path in sorted((ROOT / room).rglob("*.py")):
                names = {name for name, _ in imports(path)}
                assert package not in names, f"{path.relative_to(ROOT)} imports {package}"


def test_models_and_mapping_meet_only_inside_functions() -> None:
    """Each needs the other's detector or aggregation by name; neither needs it to be imported."""
    for room, other in (("models", "mapping"), ("mapping", "models")):
        for path in sorted((ROOT / room).rglob("*.py")):
            eager = {name for name, at_import in imports(path) if at_import}
            if path.name != "xfeat.py":
                assert other not in eager, f"{path.relative_to(ROOT)} imports {other} at its top"
