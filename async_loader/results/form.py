"""
Dataclasses as JSON: written, checked, read back and described by what their fields say.

    a dataclass, its hints
      └ Form: an entry for each key ─┬─> write: `to_dict`
                                     └─> wire: msgspec's type for the document ─┬─> `from_dict`
                                                                                └─> the JSON Schema

A field's annotation holds its description and bounds (`msgspec.Meta`), and what else is to be
said of its key: see `notes`. A property that is `shown` is written too, and only
checked when it is read: it follows from the fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from inspect import cleandoc
from types import GenericAlias, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NamedTuple,
    Optional,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .histogram import Histogram
from .notes import LATER, OMITTED, After, Conversion, Key, Named, Rebuilt, Rounded, Stored
from .places import DocumentError, beneath, converted

# Of a key in the JSON Schema that is being made: every document of this version has it.
_ALWAYS = "x-always"


PartT = TypeVar("PartT")
NoteT = TypeVar("NoteT")


def read(kind: type[PartT], document: Any) -> PartT:
    """Return the part in a document; raises `DocumentError` for anything else."""
    form = form_of(kind)
    part: PartT = form.read(converted(document, form.wire))
    return part


class Codec(NamedTuple):
    """How values of a type are written, and made of what msgspec read as `wire`."""

    wire: Any
    write: Conversion = None
    read: Conversion = None


class Entry(NamedTuple):
    """A key of a document, the attribute that has it, and what is to be said of it."""

    key: str
    attribute: str
    codec: Codec
    notes: tuple[Any, ...]
    is_field: bool
    needed: bool

    @property
    def is_always(self) -> bool:
        """Whether every document has the key that this version writes."""
        return LATER not in self.notes and OMITTED not in self.notes


class Form:
    """How a dataclass is written, read and described."""

    def __init__(self, kind: type[Any]) -> None:
        hints = get_type_hints(kind, include_extras=True)
        fields = dataclasses.fields(kind)
        rebuilt = {f: note for f in fields if (note := _note(Rebuilt, hints[f.name])) is not None}
        entries = [_of_field(f, hints[f.name]) for f in fields if f not in rebuilt]
        for entry, after in _properties(kind):
            keys = [known.key for known in entries]
            entries.insert(
                keys.index(after) + 1 if after else 0 if after == "" else len(keys), entry
            )
        codecs = {entry.key: entry.codec for entry in entries}
        sources = {key for f, note in rebuilt.items() if _is_needed(f) for key in note.keys}
        self._kind = kind
        self._written = [(e.key, e.attribute, e.codec.write, OMITTED in e.notes) for e in entries]
        self._read: list[tuple[str, list[tuple[str, Conversion]], Callable[..., Any] | None]] = [
            (e.attribute, [(e.key, e.codec.read)], None) for e in entries if e.is_field
        ]
        self._read += [
            (f.name, [(key, codecs[key].read) for key in note.keys], note.by)
            for f, note in rebuilt.items()
        ]
        self.wire = _struct(
            kind.__name__,
            cleandoc(kind.__doc__ or ""),
            [(e.key, e.codec.wire, e.needed or e.key in sources, e.is_always) for e in entries],
        )

    def write(self, part: Any) -> dict[str, Any]:
        """Return the document of a part."""
        document = {}
        for key, attribute, write, omitted in self._written:
            value = getattr(part, attribute)
            if value is not None or not omitted:
                document[key] = value if write is None else write(value)
        return document

    def read(self, wire: Any) -> Any:
        """Return the part of a document that has been checked."""
        values = {}
        for attribute, sources, by in self._read:
            found = [
                _read_at(key, convert, value)
                for key, convert in sources
                if (value := getattr(wire, key)) is not UNSET
            ]
            if len(found) == len(sources):  # else the field's default says what there was
                values[attribute] = found[0] if by is None else by(*found)
        part = self._kind(**values)
        if (wrong := part.damage()) is not None:
            raise DocumentError(wrong)
        return part


def form_of(kind: Any) -> Form:
    """Return how a dataclass is written, read and described."""
    return _FORMS.get(kind) or _FORMS.setdefault(kind, Form(kind))


_FORMS: dict[Any, Form] = {}


def definitions_of(
    *kinds: Any, more: frozenset[str] = frozenset(), where: str = "#/$defs/{name}"
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """
    Return JSON Schemas (draft 2020-12) of these, and of their parts, by name, which are `where`.

    An object has the keys that are named and no others; only those in `more` may have others.
    """
    wires = [_codec_of(kind).wire for kind in kinds]
    schemas, definitions = msgspec.json.schema_components(wires, ref_template=where)
    for name, definition in definitions.items():
        keys = definition["properties"]
        always = [key for key, described in keys.items() if described.pop(_ALWAYS, False)]
        definition["required"] += always
        definition["additionalProperties"] = name in more
    return list(schemas), definitions


def _note(kind: type[NoteT], hint: Any) -> NoteT | None:
    return next((note for note in _notes(hint) if isinstance(note, kind)), None)


def _notes(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _of_field(field: dataclasses.Field[Any], hint: Any) -> Entry:
    key = _note(Key, hint)
    name = field.name if key is None else key.name
    return Entry(name, field.name, _codec_of(hint), _notes(hint), True, _is_needed(field))


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _properties(kind: type[Any]) -> Iterator[tuple[Entry, str | None]]:
    """Yield each property that is shown, and the key that it comes after."""
    for base in reversed(kind.__mro__):
        for name, member in vars(base).items():
            if isinstance(member, property) and hasattr(member.fget, "shown"):
                hint = get_type_hints(member.fget, include_extras=True)["return"]
                about = cleandoc(member.__doc__ or "").split("\n\n")[0]
                codec = _codec_of(hint)
                described = codec._replace(wire=Annotated[codec.wire, Meta(description=about)])
                after = _note(After, hint)
                yield (
                    Entry(name, name, described, _notes(hint), is_field=False, needed=False),
                    None if after is None else after.key,
                )


def _struct(name: str, about: str, keys: list[tuple[str, Any, bool, bool]]) -> Any:
    """Return msgspec's type: of each key its name, its type, and whether to read and to write."""
    fields: list[Any] = []
    for key, wire, needed, always in keys:
        if needed:
            fields.append((key, wire))
        else:
            mark = Meta(extra_json_schema={_ALWAYS: True} if always else None)
            fields.append((key, Annotated[Union[wire, UnsetType], mark], UNSET))  # noqa: UP007
    return msgspec.defstruct(name, fields, kw_only=True, namespace={"__doc__": about})


def _codec_of(hint: Any) -> Codec:  # noqa: PLR0911  # a case for each kind of type
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _noted(args[0], args[1:])
    if origin in (Union, UnionType):
        (one,) = (_codec_of(arg) for arg in args if arg is not NoneType)
        return Codec(Optional[one.wire], _or_none(one.write), _or_none(one.read))  # noqa: UP045
    if origin is tuple:
        one = _codec_of(args[0])
        wire = GenericAlias(tuple, (one.wire, ...))
        return Codec(wire, _listed(one.write), one.read and _tuple_of(one.read))
    if origin is Mapping:
        one = _codec_of(args[1])
        wire = GenericAlias(dict, (str, one.wire))
        return Codec(wire, _mapped(one.write), one.read and _mapping_of(one.read))
    if hint is Histogram:
        return Codec(str, Histogram.encode, Histogram.decode)
    if dataclasses.is_dataclass(hint):
        form = form_of(hint)
        return Codec(form.wire, form.write, form.read)
    return Codec(hint)


def _noted(hint: Any, notes: tuple[Any, ...]) -> Codec:
    """Return the codec of a type as its notes change it."""
    if any(isinstance(note, Rebuilt) for note in notes):
        return Codec(hint)
    if OMITTED in notes:
        hint, _ = get_args(hint)  # None is the other
    codec = Codec(Any) if any(isinstance(n, Named | Stored) for n in notes) else _codec_of(hint)
    for note in notes:
        if isinstance(note, Meta):
            codec = codec._replace(wire=Annotated[codec.wire, note])
        elif isinstance(note, Rounded):
            codec = codec._replace(write=partial(round, ndigits=note.digits))
        elif isinstance(note, Stored):
            codec = _stored(note)
        elif isinstance(note, Named):
            codec = _named(note, get_args(hint)[1])
    return codec


def _stored(note: Stored) -> Codec:
    inner = _codec_of(note.hint)
    return Codec(inner.wire, _chained(note.write, inner.write), _chained(inner.read, note.read))


@cache
def _named(note: Named, hint: Any) -> Codec:
    one = _codec_of(hint)
    keys = [
        (key, Annotated[one.wire, Meta(description=about)], key not in note.later, False)
        for key, about in note.keys
    ]

    def read(wire: Any) -> dict[str, Any]:
        found = ((key, getattr(wire, key)) for key, _ in note.keys)
        return {key: _read_at(key, one.read, value) for key, value in found if value is not UNSET}

    return Codec(_struct(note.title, note.about, keys), _mapped(one.write), read)


def _read_at(key: str, convert: Conversion, value: Any) -> Any:
    try:
        return value if convert is None else convert(value)
    except ValueError as error:
        raise beneath(key, error) from None


def _or_none(convert: Conversion) -> Conversion:
    return convert and (lambda value: None if value is None else convert(value))


def _chained(first: Conversion, second: Conversion) -> Conversion:
    if first is None or second is None:
        return first or second
    return lambda value: second(first(value))


def _listed(write: Conversion) -> Conversion:
    return list if write is None else lambda values: [write(value) for value in values]


def _mapped(write: Conversion) -> Conversion:
    if write is None:
        return dict
    return lambda values: {name: write(value) for name, value in values.items()}


def _tuple_of(convert: Callable[[Any], Any]) -> Conversion:
    return lambda values: tuple(
        _read_at(str(number), convert, value) for number, value in enumerate(values)
    )


def _mapping_of(convert: Callable[[Any], Any]) -> Conversion:
    return lambda values: {name: _read_at(name, convert, value) for name, value in values.items()}
