"""rlx report, export: what others get to see of runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rlx.base.errors import UserError
from rlx.base.files.atomic import write_atomically
from rlx.base.files.paths import check_out, near
from rlx.base.streams import others_on_stderr
from rlx.cli.app import Checkpoint, Json, RunName, Trust, app, check_choice, optional, run_path, set_one_thread

FORMS = ("safetensors", "onnx", "folder", "hf")


@app.command()
def report(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN|DIRECTORY|PATTERN]...", help="Runs, or where to look (runs).")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, .html.")] = Path("report.html"),
    metric: Annotated[str, optional(help="Metric to plot (the learning and evaluation curves).")] = "",
    title: Annotated[str, optional(help="Page title.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Also print the table of results.")] = False,
) -> None:
    """Write a page about runs, or about a search, as one HTML file."""
    from rlx.analysis.report.build import build
    from rlx.analysis.report.page import html
    from rlx.explain.runs.story import explain

    check_out(out, (".html", ".htm"))
    result = build(paths or (), metric, title, explain)
    page = html(result).encode("utf-8", "replace")
    try:
        write_atomically(out, page, durable=False)
    except OSError as error:
        raise UserError(f"--out={out}: {error}") from None
    if as_json:
        print(json.dumps({"out": str(out), "rows": result.table(), "notes": result.notes}))
        return
    count = sum(len(row.runs) for row in result.rows)
    print(f"{out}: {count} run{'s' * (count != 1)}, {len(page) / 1e3:,.0f} kB")


@app.command()
def export(
    run: RunName,
    to: Annotated[str, typer.Option(help="safetensors, onnx, folder or hf.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="New file or directory to write.")] = None,
    checkpoint: Checkpoint = "latest",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Export a run's policy for use without rlx.

    As tensors (safetensors), as an ONNX graph, as a folder with code that acts, or as a directory that transformers
    loads (hf).
    """
    check_choice("--to=", to, FORMS, "format")
    path = run_path(run)
    set_one_thread()
    from rlx.export import formats

    with others_on_stderr():
        written = str(near(formats.export(path, to, out, checkpoint, trust)))
    print(json.dumps({"run": str(path), "to": to, "out": written}) if as_json else written)
