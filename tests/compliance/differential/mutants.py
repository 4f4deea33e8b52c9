"""Mended faults, broken again: the tester has to find each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from async_loader.inserts import calls, flush_order, refusals, save, tree
from async_loader.inserts.insert import Insert


class Patch(Protocol):
    """What pytest's `monkeypatch` and the command line have in common."""

    def setattr(self, target: Any, name: str, value: Any, /) -> None:
        """Set an attribute, for as long as the patch lasts."""


@dataclass(frozen=True)
class Mutant:
    """A fault, and which of the kinds of the promise it breaks."""

    breaks: str
    apply: Callable[[Patch], None]
    drivers: tuple[str, ...] = ("asyncpg", "psycopg")


def _unsorted_keys(patch: Patch) -> None:
    """Keys that come back are handed out from the end."""
    original = Insert._in_order

    def reversed_rows(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return list(original(self, *arguments, **keywords))[::-1]

    patch.setattr(Insert, "_in_order", reversed_rows)


def _early_keys(patch: Patch) -> None:
    """Children get what their parents have before defaults were called."""
    patch.setattr(tree.Tree, "_refuse_later_keys", lambda _: None)


def _unseen_triggers(patch: Patch) -> None:
    """Tables that show how their rows came are batched like others."""
    patch.setattr(refusals, "_refuse_what_shows", lambda _: None)


def _groups_out_of_order(patch: Patch) -> None:
    """Rows go out by their columns, whatever the server counts."""
    original = Insert.send

    def send(self: Any, *, in_order: bool, statement_bytes: int) -> None:
        original(self, in_order=False, statement_bytes=statement_bytes)

    patch.setattr(Insert, "send", send)


def _siblings_out_of_order(patch: Patch) -> None:
    """Rows of several mappers go out mapper by mapper."""
    patch.setattr(save, "_one_after_another", lambda inserts: inserts)


def _defaults_by_column(patch: Patch) -> None:
    """Defaults are called column by column, and before anything is bound."""

    def call(tables: Any) -> None:
        for _, sheet in tables:
            for default in sheet.defaults:
                for row in default.rows:
                    default.values[row] = calls._call(default.column)

    patch.setattr(save, "call_defaults", call)
    patch.setattr(refusals, "refuse_turns", lambda *_, **__: None)


def _later_rows(patch: Patch) -> None:
    """A row may refer to a later one of its statement."""
    for module in (refusals, tree):
        patch.setattr(module, "refuse_later", lambda *_: None)


def _autocommit(patch: Patch) -> None:
    """A batch is one statement, on an AUTOCOMMIT connection too."""
    patch.setattr(save, "is_autocommit", lambda _: False)


def _one_zone(patch: Patch) -> None:
    """All times of a column have the zone of the first."""
    patch.setattr(calls, "_zones", lambda _: ())


def _first_type(patch: Patch) -> None:
    """psycopg may guess the type of a column from one of its values."""
    patch.setattr(calls, "refuse_guesses", lambda *_: None)


def _late_looks(patch: Patch) -> None:
    """Values are looked at when keys are drawn and defaults called."""
    for module in (save, tree):
        patch.setattr(module, "refuse_given", lambda *_, **__: None)


def _one_row_unseen(patch: Patch) -> None:
    """Of a table that gets one row nothing is asked, though its key is drawn."""
    patch.setattr(refusals, "must_ask", lambda *_: False)


def _far_errors(patch: Patch) -> None:
    """After an error objects are left as a batch leaves them."""
    patch.setattr(save, "_is_sent_at_once", lambda _: True)


def _lost_friends(patch: Patch) -> None:
    """A class that many-to-many connects with itself is taken for a tree."""
    original = flush_order.KeyPropagation.run

    def run(self: Any, uow: Any, processor: Any) -> None:
        if processor.prop._is_self_referential:
            self.later.pop(processor, None)
        original(self, uow, processor)

    patch.setattr(flush_order.KeyPropagation, "run", run)


def _levels_at_once(patch: Patch) -> None:
    """Of a tree that is refused nothing is carried as far as SQLAlchemy came."""

    def resend(self: Any, resending: Any, inserts: Any) -> None:
        resending.send(self.states, resending.made(inserts))

    patch.setattr(tree.Tree, "resend", resend)


MUTANTS: dict[str, Mutant] = {
    "keys_of_others": Mutant("objects get the keys of their own rows", _unsorted_keys),
    "early_keys": Mutant("children get their parents' keys", _early_keys),
    "unseen_triggers": Mutant("how rows came is seen by no trigger", _unseen_triggers),
    "groups_out_of_order": Mutant("the server counts rows as they came", _groups_out_of_order),
    "siblings_out_of_order": Mutant("also those of several mappers", _siblings_out_of_order),
    "defaults_by_column": Mutant("defaults are called in order", _defaults_by_column),
    "later_rows": Mutant("a child before its parent is refused", _later_rows),
    "autocommit": Mutant("rows before one that fails are kept", _autocommit),
    "one_zone": Mutant("times keep their zones", _one_zone, ("psycopg",)),
    "first_type": Mutant("a column may mix types", _first_type, ("psycopg",)),
    "late_looks": Mutant("what is refused goes as if nothing had been tried", _late_looks),
    "one_row_unseen": Mutant("a row that nobody may read is refused", _one_row_unseen),
    "lost_friends": Mutant("rows between a table and itself go in", _lost_friends),
    "levels_at_once": Mutant("a refused tree leaves keys as far as it came", _levels_at_once),
    "far_errors": Mutant("after an error objects are as SQLAlchemy leaves them", _far_errors),
}
