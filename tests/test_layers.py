"""The house: imports point one way, nothing is loaded that is not asked for, names are complete."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nocookie

ROOT = Path(nocookie.__file__).parent

#: From the ground up. A module imports from the lines above its own.
LAYERS = [
    ["nocookie.bases", "nocookie.entities", "nocookie.errors"],
    ["nocookie.forks", "nocookie.strength"],
    ["nocookie.farewell", "nocookie.local", "nocookie.processes"],
    ["nocookie.events"],
    ["nocookie.sealing"],
    ["nocookie.ids"],
    ["nocookie.beaker_ids"],
    ["nocookie.logs", "nocookie.request"],
    ["nocookie.codecs"],
    ["nocookie.beaker_options"],
    ["nocookie.options"],
    ["nocookie.places", "nocookie.policies"],
    ["nocookie.rewriting", "nocookie.markup"],
    ["nocookie.plain"],
    ["nocookie.html"],
    ["nocookie.stores.base"],
    ["nocookie.facts"],
    ["nocookie.stores.pool", "nocookie.stores.retry", "nocookie.stores.timed"],
    ["nocookie.stores.ownership", "nocookie.stores.reserve", "nocookie.stores.sqlite_file"],
    [
        "nocookie.stores.memcached_wire",
        "nocookie.stores.redis_scripts",
        "nocookie.stores.redis_url",
    ],
    ["nocookie.stores.memcached_servers", "nocookie.stores.redis_connection"],
    ["nocookie.stores.redis_cluster"],
    ["nocookie.stores.redis_wire"],
    ["nocookie.stores.sqlalchemy.rows", "nocookie.stores.sqlalchemy.failures"],
    ["nocookie.stores.sqlalchemy.statements", "nocookie.stores.sqlalchemy.watchdog"],
    ["nocookie.stores.sqlalchemy.calls"],
    ["nocookie.stores.sqlalchemy.sqlite"],
    ["nocookie.stores.sqlalchemy.engines"],
    ["nocookie.stores.sqlalchemy.store"],
    ["nocookie.stores.*"],
    ["nocookie.stores"],
    ["nocookie.tokens"],
    ["nocookie.carriers"],
    ["nocookie.leaks", "nocookie.links", "nocookie.reporting"],
    ["nocookie.backend"],
    ["nocookie.sessions"],
    ["nocookie.owners", "nocookie.sealed", "nocookie.session_object"],
    ["nocookie.answers", "nocookie.manager"],
    ["nocookie.middleware"],
    ["nocookie"],
    ["nocookie.beaker_bounds"],
    ["nocookie.inifile", "nocookie.beaker_memcached"],
    ["nocookie.beaker_stores"],
    ["nocookie.importing"],
    [
        *("nocookie.adapters.*", "nocookie.demo", "nocookie.flash", "nocookie.forms"),
        "nocookie.listing",
        *("nocookie.purge", "nocookie.testing.clock", "nocookie.testing.threads"),
        *("nocookie.testing.audit.client", "nocookie.testing.audit.elsewhere"),
        *("nocookie.testing.audit.report", "nocookie.testing.audit.requirements"),
        "nocookie.testing.audit.target",
    ],
    ["nocookie.testing.audit.auditor"],
    ["nocookie.testing.audit.checks.ids"],
    ["nocookie.testing.audit.checks.*"],
    ["nocookie.testing.audit.checks"],
    ["nocookie.testing.audit"],
    ["nocookie.testing.serving"],
    ["nocookie.testing.*"],
    ["nocookie.testing.audit.__main__"],
    ["nocookie.testing"],
    [
        *("nocookie.adapters", "nocookie.successor"),
        *("nocookie.commands.fingerprints", "nocookie.commands.showing"),
        *("nocookie.commands.where", "nocookie.commands.working"),
    ],
    ["nocookie.checking"],
    ["nocookie.commands.*"],
    ["nocookie.commands", "nocookie.cli"],
    ["nocookie.__main__"],
]

MODULES = {
    ".".join(["nocookie", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}


def layer(module):
    for name in (module, f"{module.rpartition('.')[0]}.*"):
        for number, names in enumerate(LAYERS):
            if name in names:
                return number
    raise AssertionError(f"{module} has no layer: say in LAYERS where it stands")


def runtime_imports(tree):
    """Yield (names, is at the top of the module) of what is imported when the code runs."""

    def walk(nodes, top):
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                yield from walk(node.orelse, top)
            elif isinstance(node, ast.Import):
                yield [alias.name for alias in node.names], top
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield [name if name in MODULES else node.module for name in names], top
            else:
                inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
                yield from walk(ast.iter_child_nodes(node), top and not inside)

    yield from walk(tree.body, True)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    here = layer(module)
    for names, _ in runtime_imports(ast.parse(MODULES[module].read_text())):
        for name in names:
            if name.partition(".")[0] == "nocookie":
                assert layer(name) < here, f"{module} imports {name}, which stands on it"


def test_the_order_itself_is_checked():
    """The test above can fail."""
    tree = ast.parse("if TYPE_CHECKING:\n import a\ndef f():\n from nocookie.sessions import b\n")
    assert list(runtime_imports(tree)) == [(["nocookie.sessions"], False)]
    assert layer("nocookie.sessions") > layer("nocookie.errors")
    assert layer("nocookie.stores.base") < layer("nocookie.stores.file") < layer("nocookie.stores")


NOT_LOADED = [
    *("sqlite3", "redis", "hiredis", "sqlalchemy", "cryptography"),
    *("flask", "django", "pyramid", "bottle", "paste", "waitress", "gunicorn"),
    *("pytest", "hypothesis", "beaker", "webtest"),
    *("nocookie.stores.file", "nocookie.stores.memcached", "nocookie.stores.memory"),
    *("nocookie.testing", "nocookie.cli"),
    *("nocookie.commands", "nocookie.inifile", "nocookie.demo", "nocookie.purge"),
    "nocookie.listing",
    *("nocookie.adapters", "click"),
]


def loaded_after(code):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_package_loads_no_backend_and_no_framework():
    # Some packages have themselves loaded by whatever Python starts.
    loaded = loaded_after("import nocookie") - loaded_after("pass")
    assert "nocookie.middleware" in loaded
    assert sorted(loaded & set(NOT_LOADED)) == []


def test_a_store_is_loaded_when_its_type_is_used():
    loaded = loaded_after("import nocookie\nnocookie.SessionMiddleware(None)")
    assert "nocookie.stores.memory" in loaded
    assert not loaded & {"nocookie.stores.file", "sqlite3"}


def test_the_memcached_store_needs_no_package():
    loaded = loaded_after(
        "from nocookie.stores.memcached import MemcachedStore\nMemcachedStore(url='a:1')"
    )
    assert "nocookie.stores.memcached_servers" in loaded
    packages = {name.partition(".")[0] for name in loaded - loaded_after("import nocookie")}
    assert packages <= {"nocookie", *sys.stdlib_module_names}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_third_partys_package_is_imported_at_the_top_by_none_but_its_own(module):
    """WebOb is what the library needs, and click its command line; whatever else is needed is
    imported when it is."""
    allowed = {
        "nocookie.cli": {"click"},
        **{name: {"click"} for name in MODULES if name.startswith("nocookie.commands.")},
        "nocookie.testing.stores": {"pytest", "hypothesis"},
        "nocookie.testing.carriers": {"pytest"},
        "nocookie.testing.audit.__main__": {"click"},
        "nocookie.testing.reference": {"click"},
    }.get(module, set())
    for names, top in runtime_imports(ast.parse(MODULES[module].read_text())):
        for name in names if top else ():
            package = name.partition(".")[0]
            assert package in {"nocookie", "webob", *sys.stdlib_module_names, *allowed}


@pytest.mark.parametrize(
    ("suite", "missing", "needed"),
    [
        ("StoreSuite", "hypothesis", "pytest and hypothesis"),
        ("CarrierSuite", "pytest", "pytest"),
    ],
)
def test_a_suite_without_its_packages_says_what_to_install(suite, missing, needed):
    code = (
        f"import sys\nsys.modules[{missing!r}] = None\n"
        "from nocookie.testing import FakeClock\n"
        f"from nocookie.testing import {suite}"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"ImportError: nocookie.testing.{suite} needs {needed}: pip" in done.stderr


def public_names(path):
    """The classes and functions without an underscore that the module defines."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name


def by_case(name):
    """CONSTANTS, then Classes, then functions: as the linter sorts them."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2, name


#: Programs and suites: nobody imports their parts.
WHOLES = {
    *("nocookie.cli", "nocookie.demo"),
    *("nocookie.testing.carriers", "nocookie.testing.reference", "nocookie.testing.stores"),
}


@pytest.mark.parametrize(
    "module",
    sorted(MODULES.keys() - {"nocookie.__main__"}),
)
def test_the_public_names_of_a_module_are_sorted_and_complete(module):
    loaded = importlib.import_module(module)
    names = loaded.__all__
    assert list(names) == sorted(set(names), key=by_case)
    assert all(hasattr(loaded, name) for name in names)
    if module not in WHOLES:
        missing = set(public_names(MODULES[module])) - set(names)
        assert not missing, "defined without an underscore, and not in __all__"


def test_the_package_exports_what_it_imports():
    tree = ast.parse(MODULES["nocookie"].read_text())
    imported = [
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert None not in imported, "import x as x: a re-export that type checkers see"
    assert sorted(imported) == nocookie.__all__


def test_the_package_exports_no_store_and_no_test():
    assert not {"MemoryStore", "FileStore", "StoreSuite", "FakeClock"} & set(dir(nocookie))


def test_every_module_says_what_it_is_for():
    for module, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), module


def test_the_types_are_shipped():
    assert (ROOT / "py.typed").exists()
