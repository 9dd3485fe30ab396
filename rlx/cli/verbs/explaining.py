"""rlx explain: what a name means, or which page answers a question."""

from typing import Annotated

import typer

from rlx.cli.app import app

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[WORD]...", help="A name, or a question. Without one: what there is to ask for."),
]


@app.command()
def explain(words: Words = None) -> None:
    """Explain a name or a run, or answer a question.

    An algorithm, a key (algo.clip_coef), a metric (train/approx_kl), an equation (gae), a term (bellman), a run
    (latest), or a question: rlx explain why did my entropy collapse.
    """
    from rlx.cli.explaining import explain

    if code := explain(words or []):
        raise typer.Exit(code)
