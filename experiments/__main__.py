"""The command line: `python -m experiments`.

python -m experiments                                  list everything
python -m experiments poisson table1 --quick           run one experiment
python -m experiments poisson table1 --help            its options
python -m experiments all --quick                      run all, then write the report
python -m experiments report                           write the report again
python -m experiments bench                            compare with peers
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console
from rich.table import Table

from experiments import bench, catalogue, report, runner

console = Console()
errors = Console(stderr=True)


@dataclasses.dataclass(frozen=True)
class Options:
    """What every run understands."""

    out: Path = Path("results")
    """Folder for the results."""
    quick: bool = False
    """Smaller sizes: seconds rather than minutes."""
    force: bool = False
    """Compute again what is finished."""


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """Options of the benchmarks."""

    out: Path = Path("results")
    """Folder for the results."""
    quick: bool = False
    """Fewer rounds and smaller sizes."""
    only: str = ""
    """Only rows whose name contains this."""


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Options of the report."""

    out: Path = Path("results")
    """Folder with the results."""


def show_list() -> int:
    """Print what there is to run."""
    table = Table(title="python -m experiments PACKAGE NAME [--quick]", title_justify="left")
    for column in ("package", "name", "what it is"):
        table.add_column(column)
    for experiment in catalogue.experiments():
        table.add_row(experiment.package, experiment.name, experiment.title)
    console.print(table)
    console.print("Also: all, report, bench. Options of each: --help")
    return 0


def show(record: dict, path: Path, computed: bool) -> None:
    """Print one record."""
    rows = record["results"].get("table")
    if rows:
        title = f"{record['package']} {record['experiment']}: {record['title']}"
        console.print(report.rich_table(rows, title, console.width))
    for note in record["results"].get("notes", []):
        console.print(note)
    state = "written" if computed else "kept from an earlier run (--force computes again)"
    console.print(f"{path} and {path.with_suffix('.png').name} {state}\n", style="dim")


def run_one(experiment: catalogue.Experiment, argv: list[str]) -> int:
    """Run one experiment with options from the command line."""
    module = experiment.module
    arguments = dataclasses.make_dataclass(
        "Arguments",
        [
            ("options", Annotated[Options, tyro.conf.arg(name="")]),
            ("config", Annotated[module.Config, tyro.conf.arg(name="")]),
        ],
        frozen=True,
    )
    start = module.QUICK if "--quick" in argv else module.Config()
    parsed = tyro.cli(
        arguments,
        args=argv,
        default=arguments(Options(), start),
        prog=f"python -m experiments {experiment.package} {experiment.name}",
        description=experiment.title,
    )
    options = parsed.options
    record, computed = runner.run(experiment, parsed.config, options.out, force=options.force)
    show(record, runner.path_of(experiment, options.out), computed)
    return 0


def run_all(argv: list[str]) -> int:
    """Run every experiment; one that fails does not stop the others."""
    options = tyro.cli(Options, args=argv, prog="python -m experiments all")
    failed = []
    for experiment in catalogue.experiments():
        module = experiment.module
        config = module.QUICK if options.quick else module.Config()
        name = f"{experiment.package} {experiment.name}"
        try:
            with console.status(name):
                # A full result that is up to date is more than a quick one.
                record, computed = runner.finished(experiment, module.Config(), options.out), False
                if record is None or options.force:
                    record, computed = runner.run(
                        experiment, config, options.out, force=options.force
                    )
        except Exception as error:  # reported below, after the others have run
            failed.append(name)
            errors.print(
                f"{name} failed: {type(error).__name__}: {error}", style="red", markup=False
            )
            continue
        seconds = record["seconds"]
        state = (
            f"compile {seconds['compile']:.1f} s, run {seconds['run']:.1f} s"
            if computed
            else "kept"
        )
        console.print(f"{name}: {state}")
    console.print(report.summary(options.out, console.width))
    console.print(f"report: {report.write(options.out)}")
    if failed:
        errors.print(f"failed: {', '.join(failed)}", style="red")
    return 1 if failed else 0


def run_bench(argv: list[str]) -> int:
    """Run the benchmarks and print their ratios."""
    options = tyro.cli(BenchOptions, args=argv, prog="python -m experiments bench")
    record = bench.run(options.out, quick=options.quick, only=options.only)
    console.print(report.rich_table(record["rows"], "ours / fastest peer, medians", console.width))
    console.print(f"{options.out / 'bench.json'} written", style="dim")
    return 0


def main(argv: list[str]) -> int:
    """Dispatch on the first word; exit code 2 for input that cannot be used."""
    # An application may choose the precision; the packages never do.
    jax.config.update("jax_enable_x64", True)
    try:
        match argv:
            case []:
                return show_list()
            case ["-h" | "--help", *_]:
                console.print(__doc__)
                return 0
            case ["all", *rest]:
                return run_all(rest)
            case ["bench", *rest]:
                return run_bench(rest)
            case ["report", *rest]:
                out = tyro.cli(ReportOptions, args=rest, prog="python -m experiments report").out
                console.print(f"report: {report.write(out)}")
                return 0
            case [package, name, *rest] if not name.startswith("-"):
                return run_one(catalogue.find(package, name), rest)
            case [package, *_]:
                catalogue.find(package, "")
    except (ValueError, OSError) as error:
        errors.print(f"error: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
