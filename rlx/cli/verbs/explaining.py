"""rlx explain: what a name means."""

from typing import Annotated

import typer

from rlx.cli.verbs.base import app


@app.command()
def explain(
    words: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="A metric, or several words.")] = None,
) -> None:
    """What a metric means: rlx explain train/approx_kl."""
    from rlx.cli.explaining import explain

    if code := explain(words or []):
        raise typer.Exit(code)
