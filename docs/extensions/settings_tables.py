"""
The directive `settings-of`: a command's options, from the model that parses them.

    :::{settings-of} job run
    :::
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from async_loader.settings.option_group import ENV_PREFIX
from async_loader.settings.option_types import Metavar
from async_loader.settings.sources import COMMANDS


class SettingsOf(SphinxDirective):
    """A table of flag, variable, default and meaning, in the order of `--help`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """See `docutils.parsers.rst.Directive.run`."""
        model = COMMANDS[self.arguments[0]]
        lines = [(model.__doc__ or "").strip().splitlines()[0], ""]
        lines += ["| option | variable | default | |", "|---|---|---|---|"]
        lines += [_row(name, field) for name, field in model.model_fields.items()]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, "settings-of"), self.content_offset, node)
        return list(node.children)


def _row(name: str, field: Any) -> str:
    metavar = next((one.text for one in field.metadata if isinstance(one, Metavar)), "")
    flag = f"`--{name.replace('_', '-')}{f' {metavar}' if metavar else ''}`"
    default = "" if field.is_required() or field.default in (None, ()) else f"`{field.default}`"
    cells = (flag, f"`{ENV_PREFIX}{name.upper()}`", default, field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive; see Sphinx's documentation of extensions."""
    app.add_directive("settings-of", SettingsOf)
    return {"parallel_read_safe": True}
