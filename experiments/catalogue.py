"""What there is to run: the experiments and benchmarks of each package, by name."""

import dataclasses
import importlib
import importlib.util
import inspect
from types import ModuleType

PACKAGES = ("poisson", "chebyshev", "klcontrol", "lyapjax", "phydi")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One module of one package's folder."""

    package: str
    name: str
    module: ModuleType

    @property
    def title(self) -> str:
        """The first line of the module's docstring."""
        return inspect.getdoc(self.module).splitlines()[0]

    @property
    def text(self) -> str:
        """The docstring after its first line, a line a paragraph."""
        rest = "\n".join(inspect.getdoc(self.module).splitlines()[1:]).strip()
        return "\n\n".join(" ".join(part.split()) for part in rest.split("\n\n"))


def _folder(package: str) -> ModuleType | None:
    name = f"experiments.{package}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def experiments() -> list[Experiment]:
    """All experiments, in the order of the papers and of each folder's EXPERIMENTS."""
    found = []
    for package in PACKAGES:
        folder = _folder(package)
        for name in folder.EXPERIMENTS if folder else ():
            module = importlib.import_module(f"experiments.{package}.{name}")
            found.append(Experiment(package, name, module))
    return found


def find(package: str, name: str) -> Experiment:
    """The experiment of that name, or a ValueError that lists what there is."""
    known = experiments()
    for experiment in known:
        if (experiment.package, experiment.name) == (package, name):
            return experiment
    names = ", ".join(e.name for e in known if e.package == package)
    if names:
        raise ValueError(f"no experiment {name!r} in {package}; there are: {names}")
    packages = ", ".join(dict.fromkeys(e.package for e in known))
    raise ValueError(f"no experiments of {package!r}; packages that have some: {packages}")


def benchmark_rows(quick: bool) -> list:
    """The benchmark rows of all packages."""
    rows = []
    for package in PACKAGES:
        if _folder(package) and importlib.util.find_spec(f"experiments.{package}.benchmarks"):
            module = importlib.import_module(f"experiments.{package}.benchmarks")
            rows += module.rows(quick)
    return rows
