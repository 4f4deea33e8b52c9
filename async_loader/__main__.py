"""`python -m async_loader`, and the installed command of the same name."""

from __future__ import annotations

import sys

from .errors import ConfigurationError, MissingExtraError


def main() -> int:
    """Run the command line; return its exit code."""
    try:
        check_platform()
    except ConfigurationError as error:
        sys.stderr.write(f"async_loader: {error}\n")
        return error.exit_code
    from .cli import main as run_command  # noqa: PLC0415  it imports the optional packages

    return run_command(sys.argv[1:])


def check_platform() -> None:
    """Raise `ConfigurationError` where the command cannot run."""
    if sys.platform == "win32":
        raise ConfigurationError("async_loader runs on Linux and macOS; on Windows use WSL")
    for package in ("pydantic_settings", "plotext", "rich"):
        MissingExtraError.unless_installed(package, "the command", "cli")


if __name__ == "__main__":
    sys.exit(main())
