"""The notebooks as pages: their text, and their code to be copied."""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def names() -> list[str]:
    return [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]


def title(name: str) -> str:
    return _cells(name)[0][1].splitlines()[0].lstrip("# ")


def page(name: str) -> str:
    """Markdown."""
    parts = [text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in _cells(name)]
    parts.insert(1, f"*[The notebook]({name}.ipynb); `docs/notebooks/{name}.ipynb` in a checkout.*")
    return "\n\n".join(parts) + "\n"


def _cells(name: str) -> list[tuple[str, str]]:
    content = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"]).rstrip()) for cell in content["cells"]]
