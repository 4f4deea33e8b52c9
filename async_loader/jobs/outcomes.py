"""What can become of a chunk, other than being committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..database.postgresql import first_line
from ..errors import ConfigurationError, JobError
from ..failures.error_attributes import class_name
from ..failures.tracebacks import source_of
from .checkpoints import Cut


class TakenOver(Exception):  # noqa: N818  not an error: another worker goes on
    """The partition is not ours any more, or not at the chunk that we know."""


class ApplyFailed(Exception):  # noqa: N818  a pair with the two beside it
    """The user's function raised; its error is the cause."""


class Retry(Exception):  # noqa: N818  not an error: it passes
    """The chunk failed for a reason that passes; whether it was committed is not known."""


class LeaseLostError(JobError):
    """A chunk took longer than the lease, which was not renewed: the others go on without us."""


class EndRaisedError(JobError):
    """What ends a process or a task was raised within a job, which is no end of the job's."""


class ApplyRefusedError(ConfigurationError):
    """What apply did to the transaction; `loose`: some of its work may be committed."""

    def __init__(self, message: str, *, loose: bool = False) -> None:
        super().__init__(message)
        self.loose = loose

    def about(self, rows: str) -> ApplyRefusedError:
        """Return it with the rows that are concerned."""
        told = f"some of what it did may be committed: look at {rows} before the job goes on"
        return ApplyRefusedError(f"{self}; {told if self.loose else f'{rows}: rolled back'}")


@contextmanager
def ends_told(what: str = "", rest: Callable[[], str] = str) -> Iterator[None]:
    """
    Raise `JobError` where a user's code ends the process or its task: it says by what.

    `what` raised it; nothing where it may be any listener, type or default of the application's:
    then it is the line that is told.
    """
    task = _current_task()
    try:
        yield
    except (Exception, Cut):
        raise
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise  # the job's own end
        raise EndRaisedError(f"{what or _place(error)} raised CancelledError{rest()}") from error
    except GeneratorExit as error:
        if task is None or task is not _current_task():
            raise  # whoever runs us closes us
        raise EndRaisedError(f"{what or _place(error)} raised GeneratorExit{rest()}") from error
    except BaseException as error:
        raise EndRaisedError(f"{what or _place(error)} raised {written(error)}{rest()}") from error


def written(error: BaseException) -> str:
    """Return an exception as a program writes it, or its class where it cannot be written."""
    try:
        return repr(error).removesuffix("()")
    except BaseException:  # a user's own __repr__, which may even exit
        return class_name(error)


def _place(error: BaseException) -> str:
    source = source_of(error)
    return f"the application's code at {source}" if source else "the application's code"


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs: we are being closed
        return None


def again_elsewhere(job: str, rows: str, cause: BaseException) -> JobError:
    """Return why rows are not tried again whose apply committed something by itself."""
    return JobError(
        f"{job}: something was committed on another connection while apply ran, and then {rows} "
        f"failed ({first_line(cause.__cause__ or cause)}): tried again they might be done twice; "
        "write with the session that apply is given, see to these rows, and run the job again"
    )
