"""What can become of a chunk, other than being committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..database.postgresql import first_line
from ..errors import ConfigurationError, JobError


class TakenOver(Exception):  # noqa: N818  not an error: another worker goes on
    """The partition is not ours any more, or not at the chunk that we know."""


class ApplyFailed(Exception):  # noqa: N818  a pair with the two beside it
    """The user's function raised; its error is the cause."""


class Retry(Exception):  # noqa: N818  not an error: it passes
    """The chunk failed for a reason that passes; whether it was committed is not known."""


class LeaseLostError(JobError):
    """A chunk took longer than the lease, which was not renewed: the others go on without us."""


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
def ends_told(what: str, rest: Callable[[], str] = str) -> Iterator[None]:
    """Raise `JobError` where a user's function ends the process or its task: it says by what."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # the job's own end
        raise JobError(f"{what} raised CancelledError{rest()}") from error
    except GeneratorExit:
        raise  # whoever runs us closes us
    except BaseException as error:
        if isinstance(error, Exception):
            raise
        by = repr(error).removesuffix("()")
        raise JobError(f"{what} raised {by}{rest()}") from error


def again_elsewhere(job: str, rows: str, cause: BaseException) -> JobError:
    """Return why rows are not tried again whose apply committed something by itself."""
    return JobError(
        f"{job}: apply committed something on another session or connection, and then {rows} "
        f"failed ({first_line(cause.__cause__ or cause)}): tried again they would be done twice; "
        "write with the session that apply is given, see to these rows, and run the job again"
    )
