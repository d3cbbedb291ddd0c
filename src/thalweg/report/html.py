"""The report as one page that needs nothing else: tables, figures, readings, how it was made."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thalweg.report.citations import citations
from thalweg.report.style import Drawing
from thalweg.report.tables import tables


def page(result: Mapping[str, Any], drawn: Sequence[tuple[Drawing, bytes]]) -> str:
    """The HTML of a result; every text of it is escaped.

    Args:
        result: Of a schema that the report knows, such as ``thalweg.compare/1``.
        drawn: The figures and their SVG.
    """
    environment = Environment(
        loader=PackageLoader("thalweg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = [
        {
            "caption": figure.caption,
            "svg": Markup(_inline(svg.decode(), figure.name)),
            "section": figure.section,
        }
        for figure, svg in drawn
    ]
    form = "claims.html" if result["kind"] == "claims" else "result.html"
    return environment.get_template(form).render(
        result=result,
        tables=tables(result),
        figures=figures,
        citations=citations(result["source"]),
        name=name_of(result),
        command=command(result),
    )


def name_of(result: Mapping[str, Any]) -> str:
    """The command that made a result: ``compare`` of ``thalweg.compare/1``."""
    named = result.get("command")
    return str(named or result["schema"]).removeprefix("thalweg.").partition("/")[0]


def command(result: Mapping[str, Any]) -> str:
    """The command line that makes this result again."""
    problem = result["arguments"]["problem"]
    words = ["thalweg", name_of(result), *([problem] if isinstance(problem, str) else problem)]
    for name, value in result["arguments"].items():
        if name == "problem" or value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, (list, tuple)):
            words.append(",".join(map(str, value)))
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


def _inline(svg: str, name: str) -> str:
    """The drawing without its XML head; what it refers to by name gets a name of its own."""
    drawing = svg[svg.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", drawing)
