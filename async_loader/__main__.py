"""`python -m async_loader`, and the installed command of the same name."""

from __future__ import annotations

import signal
import sys

from .errors import ConfigurationError, MissingExtraError

_STOPPED = 105
# There are none on Windows, where nothing else is there either.
_OF_A_TERMINAL = tuple(
    getattr(signal, name) for name in ("SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


def main() -> int:
    """Run the command line; return its exit code."""
    # As Ctrl-C: until the command has handlers of its own, which know what to clean up.
    for number in (signal.SIGTERM, *_OF_A_TERMINAL):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    try:
        return _main()
    except KeyboardInterrupt:
        sys.stderr.write("async_loader: stopped\n")
        return _STOPPED
    finally:
        # Everything is done and said: the interpreter's own end is not interrupted.
        for number in (signal.SIGINT, signal.SIGTERM, *_OF_A_TERMINAL):
            signal.signal(number, signal.SIG_IGN)


def _main() -> int:
    try:
        check_platform()
    except ConfigurationError as error:
        sys.stderr.write(f"async_loader: {error}\n")
        return error.exit_code
    from .cli.main import main as run_command  # noqa: PLC0415  it imports the optional packages

    return run_command(sys.argv[1:])


def check_platform() -> None:
    """Raise `ConfigurationError` where the command cannot run."""
    if sys.platform == "win32":
        raise ConfigurationError("async_loader runs on Linux and macOS; on Windows use WSL")
    for package in ("jinja2", "pydantic_settings", "plotext", "rich"):
        MissingExtraError.unless_installed(package, "the command", "cli")


if __name__ == "__main__":
    sys.exit(main())
