"""What all groups of options have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .option_types import Metavar

ENV_PREFIX = "ASYNC_LOADER_"


class Group(BaseSettings):
    """What all groups have in common; a group's `title` heads its options in `--help`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="forbid",
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )
    title: ClassVar[str] = "General"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the values as given: `settings_sources.load` has merged the sources already."""
        return (init_settings,)


class GeneralOptions(Group):
    """Options of every command."""

    command: ClassVar[str]

    config: Annotated[Path | None, Field(description="TOML file with options"), Metavar("FILE")] = (
        None
    )
    debug: bool = Field(False, description="show the traceback of an error")
