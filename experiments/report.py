"""Results as a page and as a table on the terminal.

`write` makes results/report.html from the JSON and PNG files: self-contained, so that it can be
sent to somebody as one file.
"""

import base64
from pathlib import Path

import jinja2
from rich.table import Table

from experiments import catalogue, provenance, runner


def records(out: Path) -> list[dict]:
    """The finished records below `out`, in the order of the catalogue."""
    paths = (runner.path_of(e, out) for e in catalogue.experiments())
    return [record for record in map(runner.load, paths) if record and "results" in record]


def cell(value) -> str:
    """A value as the tables show it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if value and not 1e-3 <= abs(value) < 1e5:
            return f"{value:.3g}"
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return str(value)


def columns(rows: list[dict]) -> list[str]:
    """All keys of the rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def summary_rows(found: list[dict]) -> list[dict]:
    """Every row of every experiment for which the paper has a value."""
    rows = []
    for record in found:
        for row in record["results"].get("table", []):
            if row.get("paper") is None:
                continue
            rows.append(
                {
                    "experiment": f"{record['package']} {record['experiment']}",
                    "quantity": row.get("quantity", ""),
                    "paper": row["paper"],
                    "here": row.get("here"),
                }
            )
    return rows


def rich_table(rows: list[dict], title: str, width: int) -> Table:
    """Rows as a table for the terminal: as many of its columns as `width` characters have room for.

    Columns of text are folded to a third of it; the JSON and the report have all columns.
    """
    table = Table(title=title, title_justify="left")
    names, room = columns(rows), width - 1
    for place, name in enumerate(names):
        values = [row.get(name) for row in rows]
        numeric = all(isinstance(value, (int, float, type(None))) for value in values)
        most = max(len(word) for word in name.split())
        most = max([most, *(len(cell(value)) for value in values)])
        room -= 3 + (most if numeric else min(most, width // 3))
        if room < 0 and place > 1:
            left_out = ", ".join(names[place:])
            table.caption, table.caption_justify = f"also in the report: {left_out}", "left"
            break
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(name)) for name in names[: len(table.columns)]))
    return table


def summary(out: Path, width: int) -> Table:
    """The table *paper | here* of everything in `out`."""
    return rich_table(summary_rows(records(out)), "paper | here", width)


def _picture(path: Path) -> str | None:
    if not path.exists():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def write(out: Path) -> Path:
    """Write `out`/report.html and return its path."""
    found = records(out)
    for record in found:
        path = out / record["package"] / f"{record['experiment']}.png"
        record["picture"] = _picture(path)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments", "."), autoescape=True, trim_blocks=True
    )
    environment.filters["cell"] = cell
    environment.globals["columns"] = columns
    page = environment.get_template("report.html.j2").render(
        records=found,
        summary=summary_rows(found),
        bench=runner.load(out / "bench.json"),
        commit=provenance.commit(),
        environment=provenance.environment(),
    )
    path = out / "report.html"
    runner.write_atomically(path, page.encode())
    return path
