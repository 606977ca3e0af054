"""The rooms' walls: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BELOW: dict[str, set[str]] = {
    "schemas": set(),
    "geodesy": set(),
    "console": {"schemas"},
    "weights": {"schemas"},
    "photos": {"schemas", "geodesy"},
    "simulation": {"schemas", "geodesy", "photos"},
    "retrieval": {"schemas", "geodesy", "photos"},
    "features": {"schemas", "photos", "weights"},
    "models": {"schemas", "photos", "weights", "retrieval", "features"},
    "mapping": {"schemas", "geodesy", "photos", "features"},
    "reporting": {"schemas", "geodesy", "photos"},
}
BELOW["atlas"] = {"schemas", "geodesy", "photos", "weights"}
BELOW["atlas"] |= {"retrieval", "features", "models", "mapping"}
BELOW["evaluation"] = BELOW["atlas"] | {"atlas", "console", "reporting"}
BELOW["exports"] = BELOW["atlas"] | {"atlas"}
BELOW["transforms"] = BELOW["evaluation"] | {"evaluation", "simulation"}
BELOW["pipeline"] = BELOW["transforms"] | {"transforms"}
BELOW["jobs"] = BELOW["pipeline"] | {"pipeline", "exports"}

HOMES = {
    "apache_beam": {"atlas", "transforms", "pipeline", "jobs"},
    "pycolmap": {"mapping", "features"},
    "faiss": {"retrieval"},
    "torch": {"models", "features", "weights", "simulation", "retrieval"},
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
        found.extend(
            (name.removeprefix("vladmap.").partition(".")[0], id(node) not in lazy)
            for name in names
        )
    return found


@pytest.mark.parametrize("room", sorted(BELOW))
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    for path in sorted((ROOT / room).rglob("*.py")):
        for package, _ in imports(path):
            if package in BELOW and package != room:
                assert package in BELOW[room], f"{path.relative_to(ROOT)} imports {package}"


@pytest.mark.parametrize("package", sorted(HOMES))
def test_a_library_is_imported_in_its_own_room_alone(package: str) -> None:
    for room in BELOW:
        if room not in HOMES[package]:
            for path in sorted((ROOT / room).rglob("*.py")):
                names = {name for name, _ in imports(path)}
                assert package not in names, f"{path.relative_to(ROOT)} imports {package}"


def test_the_atlas_imports_beam_only_where_a_path_is_not_local() -> None:
    for path in sorted((ROOT / "atlas").rglob("*.py")):
        eager = {name for name, at_import in imports(path) if at_import}
        assert "apache_beam" not in eager, f"{path.relative_to(ROOT)} imports apache_beam"
