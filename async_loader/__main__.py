"""`python -m async_loader`, and the installed command of the same name."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> int:
    """Run the command line; return its exit code."""
    if missing := [name for name in ("pydantic_settings", "rich") if find_spec(name) is None]:
        from .errors import MissingExtraError  # noqa: PLC0415  nothing else is needed here

        error = MissingExtraError(f"the command ({missing[0]} is missing)", "cli")
        sys.stderr.write(f"async_loader: {error}\n")
        return error.exit_code
    from .cli import main as run_command  # noqa: PLC0415  it imports the optional packages

    return run_command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
