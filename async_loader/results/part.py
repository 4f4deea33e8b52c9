"""What every part of a result is: a dataclass that is JSON, too, by what its fields say."""

from __future__ import annotations

from typing import Any, Self


class Part:
    """
    A part of a result, as JSON and from JSON.

    What writes and reads it is imported when that is done: who names the class may do neither.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        from .form import form_of  # noqa: PLC0415  as above

        return form_of(type(self)).write(self)

    @classmethod
    def from_dict(cls, document: Any) -> Self:
        """Return what `to_dict` wrote; raises `ValueError`, which says where, for anything else."""
        from .form import read  # noqa: PLC0415  as above

        return read(cls, document)

    def damage(self) -> str | None:
        """Return what is wrong between fields of which each is right, None where nothing is."""
        return None
