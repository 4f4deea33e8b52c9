"""
Flags, environment, `.env` and TOML into one settings model, and mistakes into one line.

pydantic-settings reads each source; merging them here, rather than in its constructor, tells
us which source a wrong value came from.
"""

from __future__ import annotations

import codecs
import os
import tomllib
from argparse import ArgumentParser, RawDescriptionHelpFormatter, _ArgumentGroup
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import CliSettingsSource, DotEnvSettingsSource, EnvSettingsSource
from pydantic_settings.exceptions import SettingsError

from ..errors import ConfigurationError
from ..runtime.streams import stdout
from .ingest import IngestSettings
from .init import InitSettings
from .jobs import JOB_COMMANDS
from .mistakes import closest, in_our_words, value_hint, with_flags
from .option_group import ENV_PREFIX, GeneralOptions, Group
from .option_types import Metavar
from .report import ReportSettings, SchemaSettings
from .run import CompareSettings, InsertsSettings, RunSettings
from .serve import ScenarioOptions, ServeSettings
from .sweep import SweepSettings

T = TypeVar("T", bound=Group)

DOTENV = Path(".env")

_MODELS: list[type[GeneralOptions]] = [
    RunSettings,
    CompareSettings,
    SweepSettings,
    InsertsSettings,
    ReportSettings,
    SchemaSettings,
    InitSettings,
    IngestSettings,
    ServeSettings,
]
COMMANDS = {model.command: model for model in (*_MODELS, *JOB_COMMANDS)}
_OPTIONS = frozenset(name for model in COMMANDS.values() for name in model.model_fields)
# One source that sets one of these takes the other out of the sources below it.
EXCLUSIVE = (
    ("ops", "duration"),
    ("ops", "stage"),
    ("duration", "stage"),
    ("processes", "cluster"),
)


def in_flags(text: str) -> str:
    """Return what is said of a run in the words of the command line."""
    return with_flags(text, _OPTIONS)


@dataclass(frozen=True, slots=True)
class Layer:
    """One source's values, and how it names a field."""

    values: dict[str, Any]
    naming: str

    def name_of(self, field: str) -> str:
        """Return the field as the user wrote it in this source."""
        return self.naming.format(
            flag=field.replace("_", "-"), variable=ENV_PREFIX + field.upper(), key=field
        )


def load(argv: Sequence[str]) -> GeneralOptions:
    """
    Return the settings of the command that the first argument names (none: run).

    Raises `ConfigurationError` that names the wrong flag, variable, key or value and the
    closest right one. Never quotes a value that may hold a password. `--help` and
    `--version` print and raise `SystemExit(0)`.
    """
    command, flags = _pick_command(argv)
    model = COMMANDS[command]
    layers = [
        Layer(_flags(model, command, flags), "--{flag}"),
        Layer(_environment(model), "{variable}"),
        Layer(_dotenv(model), "{variable} in .env"),
    ]
    file = next((layer.values["config"] for layer in layers if "config" in layer.values), None)
    if file is not None:
        layers.append(file_layer(model, Path(file)))
    return settings_of(model, layers)


def settings_of(model: type[T], layers: Sequence[Layer]) -> T:
    """Return the settings that the layers make, the strongest first; raises as `load`."""
    try:
        return model(**_merged(layers))
    except ValidationError as error:
        raise ConfigurationError(_explain(error, layers)) from None


def file_layer(model: type[Group], path: Path) -> Layer:
    """Return what a TOML file says of the model's options; raises as `load`."""
    return Layer(_toml(model, path), f"'{{key}}' in {path}")


def _pick_command(argv: Sequence[str]) -> tuple[str, list[str]]:
    if not argv or argv[0].startswith("-"):
        return "run", list(argv)
    for words in (2, 1):  # `job run`, and `run`
        command = " ".join(argv[:words])
        if command in COMMANDS:
            return command, list(argv[words:])
    family = [command for command in COMMANDS if command.startswith(f"{argv[0]} ")]
    if family and (len(argv) == 1 or argv[1].startswith("-")):
        raise ConfigurationError(f"{argv[0]} takes a second word: {', '.join(family)}")
    command = " ".join(argv[: 2 if family else 1])
    hint = closest(command, COMMANDS) or f"the commands are {', '.join(COMMANDS)}"
    raise ConfigurationError(f"unknown command {command!r}: {hint}")


def _merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Merge from the strongest layer down; of two exclusive fields the stronger layer's wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        shadowed = {
            other for pair in EXCLUSIVE for name in pair for other in pair
            if name in merged and other != name
        }  # fmt: skip
        for pair in EXCLUSIVE:
            if all(name in layer.values for name in pair):
                names = " and ".join(layer.name_of(name) for name in pair)
                raise ConfigurationError(f"{names} exclude each other: give one of them")
        merged = {k: v for k, v in layer.values.items() if k not in shadowed} | merged
    return merged


# --- sources -------------------------------------------------------------------------------


def _flags(model: type[Group], command: str, argv: Sequence[str]) -> dict[str, Any]:
    _refuse_two_workloads(argv)
    parser = _Parser(model, command)
    source: CliSettingsSource[Any] = CliSettingsSource(
        model,
        root_parser=parser,
        parse_args_method=_Parser.parse_args,
        add_argument_method=_Parser.add_option,
    )
    try:
        source(args=list(argv))
        return dict(source())
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None


def _refuse_two_workloads(argv: Sequence[str]) -> None:
    """Of other flags the last one counts; here one of two loads would be left out in silence."""
    given = {
        value for flag, value in pairwise(argv) if flag in ("--workload", *_SHORT["workload"])
    } | {flag.partition("=")[2] for flag in argv if flag.startswith("--workload=")}
    if len(given) > 1:
        raise ConfigurationError("--workload: there are two of them, and a run has one")


def _environment(model: type[Group]) -> dict[str, Any]:
    names = [n for n in os.environ if n.upper().startswith(ENV_PREFIX)]
    _refuse_unknown("environment variable {name}", names, _variables())
    return dict(EnvSettingsSource(model)())


def _dotenv(model: type[Group]) -> dict[str, Any]:
    encoding = _encoding_of(DOTENV)
    source = DotEnvSettingsSource(model, env_file=DOTENV, env_file_encoding=encoding)
    found = dotenv_values(DOTENV, encoding=encoding)
    names = [n for n in found if n.upper().startswith(ENV_PREFIX)]
    _refuse_unknown("{name} in .env", names, _variables())
    return {k: v for k, v in source().items() if k in model.model_fields}


def _encoding_of(path: Path) -> str:
    """
    Return an encoding in which a `.env`, which is the application's too, can be read.

    Our names are ASCII: where the rest is anything but UTF-8, it is not ours.
    """
    if not path.is_file():
        return "utf-8"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the file .env of this folder cannot be read: {error.strerror} (options of ours may "
            "be in it): allow it, or start elsewhere"
        ) from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _toml(model: type[Group], path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--config {path} is not TOML: {error}") from None
    except (ValueError, RecursionError):  # of Python: a number of 5,000 digits, lists in lists
        raise ConfigurationError(
            f"--config {path} has a number of too many digits, or lists too deep"
        ) from None
    values = {key.replace("-", "_"): value for key, value in values.items()}
    _refuse_unknown(f"'{{name}}' in {path}", values, _all_fields() - {"config"})
    return {k: v for k, v in values.items() if k in model.model_fields}


def _all_fields() -> set[str]:
    """Return every command's options: a file or environment may serve several commands."""
    models: list[type[Group]] = [*COMMANDS.values(), ScenarioOptions]
    return {name for model in models for name in model.model_fields}


def _variables() -> set[str]:
    return {ENV_PREFIX + name.upper() for name in _all_fields()}


def _refuse_unknown(naming: str, names: Iterable[str], known: set[str]) -> None:
    folded = {name.lower() for name in known}
    for name in names:
        if name.lower() not in folded:
            hint = closest(name, known) or "no option has that name"
            raise ConfigurationError(f"unknown {naming.format(name=name)}: {hint}")


# --- flags and help ------------------------------------------------------------------------


# What other load generators and test runners are used to.
_SHORT = {"workload": ("-w",)}


class _Parser(ArgumentParser):
    """argparse with options grouped as the settings are, and with hints for mistakes."""

    def __init__(self, model: type[Group], command: str) -> None:
        super().__init__(
            prog=f"async_loader {command}",
            usage=f"async_loader [COMMAND] [OPTIONS]   (commands: {', '.join(COMMANDS)})",
            description=model.__doc__,
            epilog=f"Each option is also a variable ({ENV_PREFIX}OPS) and a key of a TOML file\n"
            "(--config). Flags outrank variables, those .env, the file and the default.",
            formatter_class=_formatter,
            allow_abbrev=False,
            add_help=False,
        )
        self._model = model
        self._groups: dict[str, _ArgumentGroup] = {}
        general = self._group_of("config")
        general.add_argument("-h", "--help", action="help", help="show this and exit")
        general.add_argument(
            "--version", action="version", version=f"async_loader {version('async_loader')}",
            help="show the version and exit",
        )  # fmt: skip

    def add_option(self, *names: str, **options: Any) -> Any:
        """Add one field's flag to its group, with a metavar that tells what it takes."""
        field_name = options.get("dest") or names[0].lstrip("-").replace("-", "_")
        names = (*_SHORT.get(field_name, ()), *names)
        field = self._model.model_fields[field_name]
        options["help"] = _help(field)
        if "metavar" in options:
            options["metavar"] = _metavar(field)
        return self._group_of(field_name).add_argument(*names, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and name the closest flag for one that does not exist."""
        parsed, unknown = self.parse_known_args(args, namespace)
        for argument in unknown:
            if argument.startswith("-"):
                flag = argument.split("=")[0]
                hint = closest(flag, self._option_string_actions) or "see --help"
                raise ConfigurationError(f"unknown flag {flag}: {hint}")
        if unknown:
            raise ConfigurationError(f"unexpected argument {unknown[0]!r}: see --help")
        return parsed

    def _print_message(self, message: str, file: Any = None) -> None:  # noqa: ARG002  of argparse
        stdout().write(message)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage; the message names the flag."""
        raise ConfigurationError(message.removeprefix("argument "))

    def _group_of(self, field: str) -> _ArgumentGroup:
        owner = next(
            base
            for base in reversed(self._model.__mro__)
            if issubclass(base, Group) and field in base.model_fields
        )
        if owner.title not in self._groups:
            self._groups[owner.title] = self.add_argument_group(owner.title)
        return self._groups[owner.title]


def _formatter(prog: str) -> RawDescriptionHelpFormatter:
    return RawDescriptionHelpFormatter(prog, max_help_position=30)


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        return text.replace("%", "%%")
    default = field.get_default(call_default_factory=True)
    if "(default" in text or default in (None, False) or default == []:
        return text.replace("%", "%%")
    if isinstance(default, float) and _metavar(field) == "TIME":
        default = f"{default:g}s"
    return f"{text} (default: {'on' if default is True else default})".replace("%", "%%")


def _metavar(field: FieldInfo) -> str:
    for metadata in field.metadata:
        if isinstance(metadata, Metavar):
            return metadata.text
    for annotation in (field.annotation, *get_args(field.annotation)):
        nested = [m.text for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Metavar)]
        if nested:
            return nested[0]
        if get_origin(annotation) is Literal:
            return "{" + ",".join(map(str, get_args(annotation))) + "}"
    return "VALUE"


# --- mistakes ------------------------------------------------------------------------------


def _explain(error: ValidationError, layers: Sequence[Layer]) -> str:
    """Return one line for the first mistake, naming where it was made."""
    details = error.errors(include_url=False, include_input=False)[0]
    message = in_our_words(details)
    if not details["loc"]:
        return message
    field = str(details["loc"][0])
    layer = next((layer for layer in layers if field in layer.values), layers[0])
    value = layer.values.get(field)
    return f"{layer.name_of(field)}: {message}{value_hint(details, value)}"
