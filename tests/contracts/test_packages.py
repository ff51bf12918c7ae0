"""Contracts that hold across the packages; they read what is there, so a new name is covered."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("poisson", "chebyshev", "klcontrol", "lyapjax", "phydi")
ROOT = Path(__file__).parents[2]
# Random functions take a key first (or by keyword only); then come problem, state and data; options
# are keyword-only.
VOCABULARY = {
    "tol": "rtol or atol",
    "tolerance": "rtol or atol",
    "max_iter": "max_steps",
    "maxiter": "max_steps",
    "iterations": "num_steps or max_steps",
    "n_steps": "num_steps",
    "rng": "key",
    "seed": "key",
    "fun": "a name ending in _fn",
    "func": "a name ending in _fn",
    "verbose": "nothing: libraries do not print",
}


def public(package: str) -> list[tuple[str, object]]:
    """The public functions and classes of a package, by its __all__; of public modules too."""
    module = importlib.import_module(package)
    found = []
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if not inspect.ismodule(value):
            found.append((f"{package}.{name}", value))
            continue
        for inner in getattr(value, "__all__", vars(value)):
            item = getattr(value, inner)
            own = (getattr(item, "__module__", None) or "").startswith(value.__name__)
            if own and not inner.startswith("_") and callable(item):
                found.append((f"{package}.{name}.{inner}", item))
    return found


PUBLIC = [item for package in PACKAGES for item in public(package)]
FUNCTIONS = [(name, value) for name, value in PUBLIC if inspect.isfunction(value)]
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """The top-level names that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_package_imports_another_nor_plots_nor_prints(path):
    own = path.relative_to(ROOT).parts[0]
    others = {*PACKAGES, "experiments", "tests"} - {own}
    forbidden = others | {"matplotlib", "rich", "tyro", "tqdm"}
    assert not imported(path) & forbidden
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = {n.func.id for n in calls if isinstance(n.func, ast.Name)}
    assert "print" not in names


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_changes_no_configuration_and_prints_nothing(package):
    code = f"""
import jax
before = dict(jax.config.values)
import {package}
changed = [k for k, v in jax.config.values.items() if before.get(k) != v]
assert not changed, changed
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_a_docstring_and_export_only_what_exists(package):
    module = importlib.import_module(package)
    assert module.__doc__
    names = getattr(module, "__all__", [])
    assert sorted(names) == list(names)
    for name, value in vars(module).items():
        if inspect.isfunction(value) or inspect.isclass(value):
            assert name in names, f"{package}.{name} is importable but not in __all__"


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_docstrings_are_complete(name, value):
    text = inspect.getdoc(value)
    first = text.splitlines()[0]
    assert first.endswith("."), f"{name}: the first line is not a sentence: {first!r}"
    function = inspect.isfunction(value)
    sections = ["Args:", "Returns:", "Raises:", "Reference:"] if function else ["Attributes:"]
    for section in [*sections, "Examples:"]:
        assert f"\n{section}\n" in text, f"{name}: no section {section}"
    if function:
        arguments = text.split("\nArgs:\n")[1].split("\nReturns:\n")[0]
        for parameter in inspect.signature(value).parameters:
            assert f"  {parameter}:" in arguments, f"{name}: {parameter} is not described"


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_doctests_run(name, value):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    finder = doctest.DocTestFinder(recurse=False)
    tests = [test for test in finder.find(value, name, globs={}) if test.examples]
    assert tests, f"{name}: no doctest"
    output = []
    for test in tests:
        runner.run(test, out=output.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(output)


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_signatures_follow_the_conventions(name, function):
    parameters = inspect.signature(function).parameters
    for parameter in parameters:
        assert parameter not in VOCABULARY, f"{name}: {parameter}; say {VOCABULARY[parameter]}"
    if "key" in parameters and parameters["key"].kind is not inspect.Parameter.KEYWORD_ONLY:
        assert next(iter(parameters)) == "key", f"{name}: key comes first, or by keyword"
    for parameter in parameters.values():
        if isinstance(parameter.default, (bool, str)):
            assert parameter.kind is parameter.KEYWORD_ONLY, (
                f"{name}: {parameter.name} is an option"
            )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_are_named_and_sized_as_agreed(path):
    assert path.stem not in {"utils", "core", "helpers", "common", "misc"}
    assert len(path.read_text().splitlines()) <= 450
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path.name}: no docstring"


def test_no_file_names_a_registry_host_or_a_path_of_a_machine():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    words = [
        "/" + "work/",
        "/" + "root/",
        "pypi" + ".org",
        "--extra-" + "index-url",
        "/" + "simple",
    ]
    words += ["files." + "pythonhosted", "--find-" + "links"]
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.is_file():
            text = path.read_text(errors="ignore")
            found = [word for word in words if word in text]
            assert not found, f"{name} names {found}"


def test_the_top_level_is_the_agreed_one():
    agreed = {
        *("pyproject.toml", "lyapjax", "phydi", "klcontrol", "poisson", "chebyshev", "tests"),
        *("experiments", "README.md", "LICENSE", "Makefile", "constraints.txt", "docs"),
    }
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    top = {name.split("/")[0] for name in tracked.stdout.split()}
    assert {name for name in top if not name.startswith(".")} == agreed
