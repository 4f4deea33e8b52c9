"""Imports point downwards or sideways: no upward one, no cycle, no module without a layer."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = "async_loader"
ROOT = Path(__file__).parent.parent / PACKAGE

# The house, from the ground up. A folder is one room; its files may import each other. The load
# has floors of its own.
LAYERS = [
    {"errors", "failures"},
    {"concurrency"},
    {"results", "runtime", "database"},
    {"verdict", "inserts", "workers"},
    {"reads"},
    {"jobs"},
    {"load.context", "load.arguments", "load.feeds", "load.asgi"},
    {"load.workload", "load.effects", "load.__init__"},
    {"load.metrics", "load.pacing", "load.workloads", "load.loading"},
    {"load.instruments", "load.partition", "load.progress"},
    {"load.server", "load.specs"},
    {"load.runner", "load.baselines"},
    {"load.run_database"},
    {"load.app"},
    {"load.shards"},
    {"reports", "settings", "testing", "scaffold"},
    {"ingest", "service"},
    {"cli"},
    {"__main__"},
]
# The package's own __init__ names the public API, and so stands above what it names.
LAYER_OF = {room: height for height, rooms in enumerate(LAYERS) for room in rooms} | {
    "__init__": len(LAYERS)
}


@cache
def modules() -> dict[str, Path]:
    return {
        ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)): path
        for path in ROOT.rglob("*.py")
    }


def room_of(module: str) -> str:
    _, *path = module.split(".")
    return ".".join(path[:2]) if path[:1] == ["load"] else path[0]


@cache
def imports_of(module: str, path: Path) -> set[str]:
    """Return the modules of this package that a module imports, those within functions too."""
    known = set(modules())
    found: set[str] = set()
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            names = {f"{origin}.{alias.name}" for alias in node.names}
            submodules = names & (known | {k.removesuffix(".__init__") for k in known})
            found.update(submodules or {origin})
    return {f if f in known else f"{f}.__init__" for f in found if f.split(".")[0] == PACKAGE}


def test_every_module_has_a_layer() -> None:
    rooms = {room_of(module) for module in modules()}
    assert rooms - set(LAYER_OF) == set()
    assert set(LAYER_OF) - rooms == set(), "a layer names a room that does not exist"


def test_imports_point_downwards() -> None:
    upward = [
        f"{module} imports {imported}"
        for module, path in modules().items()
        for imported in imports_of(module, path)
        if LAYER_OF[room_of(imported)] > LAYER_OF[room_of(module)]
    ]
    assert upward == []


def test_imports_have_no_cycle() -> None:
    graph = {module: imports_of(module, path) - {module} for module, path in modules().items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_rooms_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in modules().items():
        room = room_of(module)
        graph.setdefault(room, set()).update(map(room_of, imports_of(module, path)))
    order = TopologicalSorter({room: imported - {room} for room, imported in graph.items()})
    assert len(list(order.static_order())) == len(graph)


def test_only_the_top_knows_the_settings() -> None:
    knowing = {
        room_of(module)
        for module, path in modules().items()
        if any(room_of(i) == "settings" for i in imports_of(module, path))
    }
    assert knowing <= {"settings", "commands", "service", "cli"}


# What a person cannot keep in mind is a type of its own: see `specs`.
MOST_PARAMETERS = 12


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many parameters a caller sees: an object's own `self` is none."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    starred = [star for star in (given.vararg, given.kwarg) if star is not None]
    return len(names) - (names[:1] in (["self"], ["cls"])) + len(starred)


def test_no_function_takes_more_parameters_than_can_be_kept_in_mind() -> None:
    wide = {
        f"{module}: {node.name} takes {parameters_of(node)}"
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if parameters_of(node) > MOST_PARAMETERS
    }
    assert wide == set()


def test_only_the_top_knows_pydantic() -> None:
    knowing = {
        room_of(module)
        for module, path in modules().items()
        for name in foreign_imports_of(path)
        if name.split(".")[0].startswith("pydantic")
    }
    top = {"settings", "commands", "service", "cli"}
    assert knowing - top == set()


# The pages that know what is private to others.
PAGES = {
    "async_loader.database.sqlalchemy_private",
    "async_loader.inserts._sqlalchemy",
    "async_loader.inserts.changes._sqlalchemy",
    "async_loader.reads._sqlalchemy",
}
# Documented, in spite of their names: of the standard library, of named tuples, of rows.
PUBLIC = {"_exit", "_getframe", "_current_frames", "_replace", "_mapping"}
# Rooms that reach for more all the same. This list only ever gets shorter.
REACHES = {
    "async_loader.results.histogram": "HdrHistogram's buckets, of which only its own methods tell",
    "async_loader.runtime.event_loop": "asyncio's way to say nothing of a task twice",
    "async_loader.settings.sources": "argparse's groups, which pydantic-settings fills",
    "async_loader.failures.tracebacks": "traceback's own text of an exception",
    **dict.fromkeys(
        [f"async_loader.inserts.{name}" for name in (
            "adding", "array_types", "bulk.copying", "column_types", "equated", "execute",
            "flush_order", "insert", "keys", "persistent", "plans", "prefetch", "resending",
            "reserve", "save", "unit_of_work",
        )],
        "in loops over objects, where each accessor is a call an object: to be moved one by one",
    ),
}  # fmt: skip


def test_what_is_private_to_others_is_on_one_page() -> None:
    trees = {module: ast.parse(path.read_text()) for module, path in modules().items()}
    ours = PUBLIC.union(*map(names_made_in, trees.values()))
    reaching = {
        module
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in ours
    }
    assert reaching - PAGES == set(REACHES)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_made_in(tree: ast.Module) -> set[str]:
    """Return the names that a module defines, assigns or declares, of whatever object."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Assign) and "__slots__" in map(ast.unparse, node.targets):
            found.update(ast.literal_eval(node.value))
    return found


def foreign_imports_of(path: Path) -> set[str]:
    """Return the absolute names that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found


def test_a_worker_needs_no_command_line() -> None:
    # What it imports by way of others, too: a worker may be on another machine.
    script = (
        "import sys; import async_loader.load.shards.shard, async_loader.testing.fixture; "
        "print([m for m in sys.modules if m.startswith(('pydantic', 'async_loader.settings'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


# Written as a user writes them, or executed by a tool that knows no package.
STAND_ALONE = ("async_loader.load.workloads.", "async_loader.service.migrations.")


def test_imports_within_the_package_are_relative() -> None:
    absolute = [
        f"{module}, line {node.lineno}"
        for module, path in modules().items()
        if not module.startswith(STAND_ALONE)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and not node.level
        if (node.module or "").split(".")[0] == PACKAGE
    ]
    assert absolute == []


def test_maps_name_files_that_are_there() -> None:
    """A room opens with a map of its files."""
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in ROOT.rglob("__init__.py")
        for name in re.findall(
            r"[\w/.]+\.py\b", ast.get_docstring(ast.parse(path.read_text())) or ""
        )
        if not (path.parent / name).exists()
    ]
    assert missing == []
