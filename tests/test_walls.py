"""The rooms' walls: who may import whom, and how large a module may be."""

from __future__ import annotations

import ast
import functools
import graphlib
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
BELOW["localisation"] = BELOW["atlas"] | {"atlas"}
BELOW["exports"] = BELOW["localisation"] | {"localisation"}
BELOW["transforms"] = BELOW["evaluation"] | {"evaluation", "simulation", "localisation"}
BELOW["pipeline"] = BELOW["transforms"] | {"transforms"}
BELOW["jobs"] = BELOW["pipeline"] | {"pipeline", "exports"}

HOMES = {
    "apache_beam": {"atlas", "transforms", "pipeline", "jobs"},
    "pycolmap": {"mapping", "features"},
    "faiss": {"retrieval"},
    "h5py": {"exports"},
    "torch": {"models", "features", "weights", "simulation", "retrieval"},
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, which most tests here look at."""
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(top-level package, whether it is imported when the module is) of each import in a file."""
    tree = parsed(path)
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


def test_every_folder_of_the_product_is_a_room() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - {"benchmarks", "tests", "vladmap"} == set(BELOW)


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


MOST_LINES = 400


def modules() -> dict[str, Path]:
    """Files of the product by import name; a package's name stands for its __init__.py."""
    paths = [ROOT / "vladmap" / "__init__.py"]
    paths += [path for room in BELOW for path in (ROOT / room).rglob("*.py")]
    names = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        names[".".join(parts if parts[0] == "vladmap" else ("vladmap", *parts))] = path
    return names


def at_import(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is imported: in no function, not for types."""
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append(node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found += at_import(ast.Module(node.orelse, []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            found += at_import(node)
    return found


def imported_modules(name: str, tree: ast.AST, known: set[str]) -> set[str]:
    """Modules of the product that a module imports, with the packages that they bring along.

    A package of which the module is a part is left out: it is being imported already.
    """
    wanted: set[str] = set()
    for node in at_import(tree):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif node.module:
            for alias in node.names:
                part = f"{node.module}.{alias.name}"
                wanted.add(part if part in known else node.module)
    along = {each.rsplit(".", cut)[0] for each in wanted for cut in range(1, each.count(".") + 1)}
    ours = {each for each in along if not f"{name}.".startswith(f"{each}.")}
    return ((wanted | ours) & known) - {name}


def circle(sources: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; or none."""
    graph = {
        name: imported_modules(name, ast.parse(text), set(sources))
        for name, text in sources.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Issue 20: imports inside functions do not count, they run later."""
    assert circle({name: path.read_text() for name, path in modules().items()}) == []


@pytest.mark.parametrize(
    ("text", "closes"),
    [
        ("from vladmap.b import one", True),
        ("from vladmap import b", True),
        ("import vladmap.b.c", True),
        ("class A:\n    from vladmap import b", True),
        ("try:\n    from vladmap import b\nexcept ImportError:\n    pass", True),
        ("def f():\n    from vladmap import b", False),
        ("if TYPE_CHECKING:\n    from vladmap import b", False),
        ("from vladmap.d import b", False),
    ],
)
def test_a_circle_is_seen_in_what_runs_at_import(text: str, closes: bool) -> None:
    """b imports a: a module a that imports b, or a part of the package b, closes a circle."""
    sources = {
        "vladmap": "", "vladmap.a": text, "vladmap.b": "import vladmap.a", "vladmap.b.c": "",
        "vladmap.d": "",
    }  # fmt: skip
    assert bool(circle(sources)) == closes


def test_no_module_of_the_product_is_longer_than_a_person_reads() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in modules().values()
    }
    assert lines["jobs/build.py"] > 0
    assert [name for name, count in lines.items() if count > MOST_LINES] == []


def test_rooms_are_imported_under_the_one_name_alone() -> None:
    """Issue 20, 7: `import jobs` would work in a checkout, and nowhere else."""
    folders = [*BELOW, "vladmap", "tests", "benchmarks"]
    paths = [ROOT / "setup.py", *(path for each in folders for path in (ROOT / each).rglob("*.py"))]
    for path in paths:
        for node in ast.walk(parsed(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.relative_to(ROOT)}: a relative import"
                names = [node.module or ""]
            bare = {name.partition(".")[0] for name in names} & set(BELOW)
            assert not bare, f"{path.relative_to(ROOT)} imports {bare}, not vladmap's"
