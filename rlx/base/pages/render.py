"""HTML pages from templates, in which jinja2 escapes every value. Their common frame and look are in base/templates."""

from functools import cache
from pathlib import Path
from typing import Any

SHARED = Path(__file__).parent / "templates"


def render(folder: Path, template: str, **values: Any) -> str:
    """A template of a folder, with values; one that is missing is an error."""
    return str(_environment(folder).get_template(template).render(values))


@cache
def _environment(folder: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([folder, SHARED])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
