"""The options of the service, and those that a scenario has beyond a run's."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from .option_group import GeneralOptions, Group
from .option_types import Metavar, Rate, Seconds, split_commas
from .run import EmbeddedOptions, RunSettings

LOOPBACK = ("127.0.0.1", "::1", "localhost")
EMBEDDED = "embedded"
# What a name in a request can be: no path, no URL, nothing that anybody would quote.
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_NAMED = re.compile(rf"({NAME})=(.+)")
_TOKEN = re.compile(rf"{NAME}=sha256:[0-9a-f]{{64}}")
_DAY = 86_400.0
# The next start is a date, and those end.
_LONGEST = 3660 * _DAY


def _split_named(value: object) -> object:
    """Split on commas behind which a name begins: a URL may have commas of its own."""
    return re.split(rf",(?={NAME}=)", value) if isinstance(value, str) else value


def _named(value: SecretStr) -> SecretStr:
    if not _NAMED.fullmatch(value.get_secret_value()):
        raise ValueError(f"a target looks like NAME=URL, or NAME={EMBEDDED}")
    return value


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("a token looks like NAME=sha256:HEX: --new-token NAME makes one")
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise ValueError("a proxy is an address or a network, as 10.1.2.3 or 10.0.0.0/8") from None


def by_name(items: list[str]) -> dict[str, str]:
    """Return what NAME=VALUE says, by name."""
    return {name: value for name, _, value in (item.partition("=") for item in items)}


class ListenOptions(Group):
    """Where it listens, and to whom."""

    title: ClassVar[str] = "Service"

    host: Annotated[
        str, Field(description="address to listen on; any but this machine's own needs "
                               "--allow-remote and a --token"),
        Metavar("ADDRESS"),
    ] = "127.0.0.1"  # fmt: skip
    port: Annotated[
        int, Field(ge=0, le=65_535, description="port to listen on (0: a free one, which it says)"),
        Metavar("PORT"),
    ] = 8642  # fmt: skip
    allow_remote: bool = Field(False, description="listen to other machines")
    allowed_host: Annotated[
        list[str],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="a name that browsers reach it by, as load.example:8642; may be repeated"
        ),
        Metavar("HOST"),
    ] = Field(default_factory=list)
    trusted_proxy: Annotated[
        list[Annotated[str, AfterValidator(_network)]],
        NoDecode,
        BeforeValidator(split_commas),
        Field(
            description="an address or network, as 10.0.0.0/8, whose X-Forwarded-For and -Host are "
            "heeded; may be repeated"
        ),
        Metavar("ADDRESS"),
    ] = Field(default_factory=list)
    tls_certificate: Annotated[
        Path | None, Field(description="serve https with this certificate"), Metavar("FILE")
    ] = None
    tls_key: Annotated[
        Path | None, Field(description="the certificate's private key"), Metavar("FILE")
    ] = None
    token: Annotated[
        list[Annotated[str, AfterValidator(_token)]],
        NoDecode,
        BeforeValidator(split_commas),
        Field(description="who may use the API, as --new-token says it; may be repeated"),
        Metavar("NAME=HASH"),
    ] = Field(default_factory=list)
    new_token: Annotated[
        str | None,
        Field(pattern=rf"^{NAME}$", description="print a new token and its --token, and exit"),
        Metavar("NAME"),
    ] = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    @model_validator(mode="after")
    def _careful(self) -> Self:
        if not self.is_local and not (self.allow_remote and self.token):
            raise ValueError(
                f"--host {self.host} lets other machines start load on your databases: that needs "
                "--allow-remote and a --token (--new-token NAME makes one)"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("--tls-certificate and --tls-key belong together")
        return self


class ServiceOptions(EmbeddedOptions):
    """What it runs, and where."""

    title: ClassVar[str] = "Service"

    config_dir: Annotated[
        Path | None, Field(description="folder of scenarios: TOML files as --config takes"),
        Metavar("DIR"),
    ] = None  # fmt: skip
    target: Annotated[
        list[Annotated[SecretStr, AfterValidator(_named)]],
        NoDecode,
        BeforeValidator(_split_named),
        Field(description="a database that runs can name (default: embedded=embedded); "
                          "may be repeated"),
        Metavar("NAME=URL"),
    ] = Field(default_factory=lambda: [SecretStr(f"{EMBEDDED}={EMBEDDED}")])  # fmt: skip
    job: Annotated[
        list[Annotated[str, Field(pattern=rf"^{NAME}=.+:\w+$")]],
        NoDecode,
        BeforeValidator(split_commas),
        Field(description="a batch job that may be resumed, as NAME=module:name; may be repeated"),
        Metavar("NAME=JOB"),
    ] = Field(default_factory=list)

    @property
    def targets(self) -> dict[str, str]:
        """The URL of each target, or `embedded`."""
        return by_name([target.get_secret_value() for target in self.target])


class HistoryOptions(Group):
    """Where results stay, and for how long."""

    title: ClassVar[str] = "History"

    history_url: Annotated[
        SecretStr | None,
        Field(description="a PostgreSQL or a SQLite file (default: history.sqlite in the user's "
                          "data directory)"),
        Metavar("URL"),
    ] = None  # fmt: skip
    keep_runs: Annotated[
        int, Field(ge=1, le=1_000_000, description="runs that are kept, the latest"), Metavar("N")
    ] = 10_000
    keep_for: Annotated[
        Seconds, Field(gt=0, description="how long a run is kept (default: 365d)")
    ] = 365 * _DAY


class BoundOptions(Group):
    """How much a request may ask for."""

    title: ClassVar[str] = "Bounds"

    max_duration: Annotated[
        Seconds, Field(gt=0, description="a run is stopped after so long (default: 1h)")
    ] = 3600.0
    max_ops: Annotated[
        int, Field(ge=1, description="operations that a request may ask for"), Metavar("N")
    ] = 10_000_000
    max_concurrency: Annotated[
        int, Field(ge=1, description="concurrency that a request may ask for"), Metavar("N")
    ] = 1000
    max_rate: Annotated[Rate, Field(description="arrival rate that a request may ask for")] = (
        "10000/s"
    )
    max_watchers: Annotated[
        int, Field(ge=1, le=10_000, description="who may watch runs at once"), Metavar("N")
    ] = 200
    max_connections: Annotated[
        int, Field(ge=1, le=50_000, description="connections at once"), Metavar("N")
    ] = 500
    request_rate: Annotated[Rate, Field(description="requests that one client may make")] = "100/s"


class ServeSettings(GeneralOptions, BoundOptions, HistoryOptions, ServiceOptions, ListenOptions):
    """Start, watch and compare runs over HTTP or from a browser, and keep their results."""

    command: ClassVar[str] = "serve"


class ScenarioOptions(Group):
    """When the service runs it by itself."""

    title: ClassVar[str] = "Schedule"

    every: Annotated[
        Seconds | None, Field(ge=60, le=_LONGEST, description="run it so often, such as 1d")
    ] = None
    on_target: Annotated[
        str | None, Field(pattern=rf"^{NAME}$", description="the target it is for"),
        Metavar("NAME"),
    ] = None  # fmt: skip


class ScenarioSettings(RunSettings, ScenarioOptions):
    """A run that the service can be asked for by name."""

    @model_validator(mode="after")
    def _one_run(self) -> Self:
        if self.calibrate:
            raise ValueError("calibrate is of several runs, and a scenario is of one")
        return self
