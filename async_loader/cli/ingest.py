"""
The command `ingest`.

What needs the extra is imported where it is used: the other commands work without it.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..concurrency.stop import Stop
from ..database.backends import backend_of
from ..database.postgresql import closing, unreachable
from ..database.sqlite import check_file
from ..database.urls import parse_url, place
from ..errors import AsyncLoaderError, ConfigurationError, MissingExtraError
from ..runtime.outputs import DONE, complain, show
from ..runtime.process import leave_errors_to_the_report, run_until_stopped
from ..runtime.streams import stderr, stdout
from ..settings.ingest import IngestSettings
from .progress import HowFar, progress_view

if TYPE_CHECKING:
    from ..ingest import Ingested, Progress
    from ..ingest.strategies import Measure

SOME_FAILED = 1
STOPPED = 105
LIBRARY = "library.sqlite"
# Four workers, their heartbeat, the reader, the progress.
_CONNECTIONS = 8


def run_ingest_command(settings: IngestSettings) -> int:
    """Load the files, or compare the ways to; return the exit code."""
    for package in ("PIL", "mutagen"):
        MissingExtraError.unless_installed(package, "ingest", "ingest")
    if not settings.debug:
        leave_errors_to_the_report()
        # What Pillow thinks of a picture that goes in is no matter of ours, nor of the terminal.
        warnings.filterwarnings("ignore", module=r"PIL\.")
    with ExitStack() as stack:
        directory, own = _directory(settings, stack)
        url = _url(settings, own)
        if url.get_backend_name() == "sqlite":
            check_file(url)
        return _compare(settings, directory, url) if settings.compare else _load(
            settings, directory, url
        )  # fmt: skip


def _load(settings: IngestSettings, directory: Path, url: URL) -> int:
    from ..ingest import report  # noqa: PLC0415  needs the extra

    def how_far(now: Progress) -> HowFar:
        return HowFar(now.size, now.all_size, report.progress_line(now))

    with progress_view(stderr(), settings.progress, how_far) as view:
        done = run_until_stopped(
            lambda stop: _ingest(settings, directory, url, stop, view.update), loop="auto"
        )
    stdout().write(report.summary(done, place(url)))
    stdout().flush()
    if done.state != "done":
        return STOPPED
    if done.failed:
        return complain(
            f"{len(done.failed):,} of {done.found:,} pairs could not be loaded", SOME_FAILED
        )
    return DONE


async def _ingest(
    settings: IngestSettings,
    directory: Path,
    url: URL,
    stop: Stop,
    on_progress: Callable[[Progress], None],
) -> Ingested:
    from ..ingest import ingest  # noqa: PLC0415  needs the extra

    async with _engine(url) as engine:
        sessions, _ = backend_of(url).session_factories(engine, reads_autocommit=False)
        return await ingest(
            directory,
            sessions,
            concurrency=settings.concurrency,
            chunk=settings.chunk,
            stop=stop,
            on_progress=on_progress,
        )


def _compare(settings: IngestSettings, directory: Path, url: URL) -> int:
    from ..ingest import report  # noqa: PLC0415  needs the extra

    if url.get_backend_name() != "sqlite":
        MissingExtraError.unless_installed("psycopg", "--compare", "sync")
    measures = run_until_stopped(lambda stop: _measure(settings, directory, url, stop), loop="auto")
    if not measures:
        return complain("stopped before a round was complete", STOPPED)
    if not measures[0].pairs:
        return complain(f"{directory} has no pair of files that could be loaded", SOME_FAILED)
    return show(partial(report.comparison, measures), [])


async def _measure(
    settings: IngestSettings, directory: Path, url: URL, stop: Stop
) -> tuple[Measure, ...]:
    from ..ingest.loading import real_directory  # noqa: PLC0415  needs the extra
    from ..ingest.strategies import measure_ways  # noqa: PLC0415  needs the extra

    try:
        return await measure_ways(
            real_directory(directory),
            url,
            concurrency=settings.concurrency,
            chunk=settings.chunk,
            rounds=settings.rounds,
            stop=stop,
        )
    except (DBAPIError, OSError) as error:
        raise unreachable(error, url) from error


def _directory(settings: IngestSettings, stack: ExitStack) -> tuple[Path, Path | None]:
    """Return the folder of the files, and one that is ours where the files are."""
    if settings.demo is None:
        assert settings.directory is not None
        return settings.directory, None
    from ..ingest.demo import make_pairs  # noqa: PLC0415  needs the extra

    own = None
    if settings.directory is None:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="async_loader-demo-")))
    directory = settings.directory or (own or Path()) / "files"
    try:
        if directory.exists() and any(directory.iterdir()):
            raise ConfigurationError(
                f"--demo makes its files in an empty folder: {directory} is none"
            )
        make_pairs(directory, settings.demo)
    except OSError as error:
        raise ConfigurationError(f"{directory}: {error.strerror}") from None
    return directory, own


def _url(settings: IngestSettings, own: Path | None) -> URL:
    """Return the user's database; their library, or beside the files where these are ours."""
    if settings.database_url is not None:
        return parse_url(settings.database_url.get_secret_value())
    MissingExtraError.unless_installed("platformdirs", "ingest", "ingest")
    import platformdirs  # noqa: PLC0415  part of an extra

    folder = own or platformdirs.user_data_path("async_loader", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}; see --database-url") from None
    return parse_url(str(URL.create("sqlite+aiosqlite", database=str(folder / LIBRARY))))


@asynccontextmanager
async def _engine(url: URL) -> AsyncIterator[AsyncEngine]:
    engine = backend_of(url).create_engine(url, pool_size=_CONNECTIONS)
    async with closing(engine):
        try:
            yield engine
        except AsyncLoaderError:
            raise
        except (DBAPIError, OSError) as error:
            raise unreachable(error, url) from error
