"""Fills in the pages, which share a frame and its style."""

from pathlib import Path
from typing import Any

import jinja2

FRAMES = Path(__file__).parent


def filled_in(template: Path, **values: Any) -> str:
    """A page out of a template, which may extend `frame.html.jinja`.

    Raises:
        jinja2.TemplateError: it asks for a value that is not there.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, FRAMES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
