"""The classes of an example, and their source text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.compliance.differential.columns import KEYS, TYPES, Key


@dataclass
class Field:
    """A column that is neither key nor reference."""

    attribute: str
    type: str
    column_name: str | None = None
    arguments: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Return the statement that maps it."""
        name = [] if self.column_name is None else [repr(self.column_name)]
        parts = [*name, TYPES[self.type].source, *self.arguments]
        return f"{self.attribute} = mapped_column({', '.join(parts)})"


@dataclass
class Relation:
    """A foreign key of a class, and what is mapped of it on either side."""

    attribute: str  # of the child; columns are named after it
    target: str
    by_code: bool = False  # refers to the parent's `code` and not to its key
    sides: str = "both"  # none, child, parent, both
    is_collection: bool = True
    arguments: tuple[str, ...] = ()  # of the parent's side
    child_arguments: tuple[str, ...] = ()
    nullable: bool = True
    reference: str = ""  # more arguments of the foreign key

    @property
    def reverse(self) -> str:
        """The attribute of the parent."""
        return f"{self.attribute}_of"


@dataclass
class Entity:
    """One mapped class."""

    name: str
    key: str = "serial"
    base: str | None = None
    inheritance: str = ""  # single, joined
    fields: list[Field] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    code: str | None = None  # a unique column that is not the key: its arguments
    version: str = ""  # counter, uuid
    mapper_arguments: tuple[str, ...] = ()
    polymorphic: bool = False
    schema: str = ""
    table_name: str = ""
    partitioned: bool = False
    extras: list[str] = field(default_factory=list)  # further statements of the class body
    table_arguments: list[str] = field(default_factory=list)

    @property
    def keys(self) -> Key:
        """Its kind of key."""
        return KEYS[self.key]


@dataclass
class Link:
    """A many-to-many relationship."""

    attribute: str
    left: str
    right: str
    extras: tuple[str, ...] = ()  # further columns of the table between
    arguments: tuple[str, ...] = ()


@dataclass
class World:
    """All of an example but its steps."""

    entities: list[Entity] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)  # SQL, after the tables are made
    condition_names: list[str] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)  # of the session and the engine

    def entity(self, name: str) -> Entity:
        """Return a class by its name."""
        return next(entity for entity in self.entities if entity.name == name)

    def root(self, entity: Entity) -> Entity:
        """Return the class that has the table's key."""
        while entity.base is not None:
            entity = self.entity(entity.base)
        return entity

    def lineage(self, entity: Entity) -> Iterator[Entity]:
        """Yield a class and those it inherits from."""
        yield entity
        while entity.base is not None:
            entity = self.entity(entity.base)
            yield entity

    def is_a(self, entity: Entity, name: str) -> bool:
        """Tell whether objects of a class are objects of another."""
        return any(one.name == name for one in self.lineage(entity))

    @property
    def features(self) -> set[str]:
        """Return what an example of this world covers."""
        found = {f"server: {name}" for name in self.condition_names}
        found |= {f"option: {name}={value}" for name, value in self.options.items() if value}
        for entity in self.entities:
            found |= set(_features(entity))
        for link in self.links:
            found.add("many to many" + (" with extras" if link.extras else ""))
        if len({entity.name for entity in self.entities if entity.base is None}) > 1:
            found.add("several hierarchies")
        return found

    @property
    def source(self) -> str:
        """Return the script that makes the classes."""
        schema = self.options.get("metadata_schema")
        metadata = f"    metadata = MetaData(schema={schema!r})" if schema else "    pass"
        lines = ["class Base(DeclarativeBase):", metadata, ""]
        lines += [line for link in self.links for line in self._link_table(link)]
        for entity in self.entities:
            lines += [*self._class(entity), ""]
        return "\n".join(lines)

    def table(self, entity: Entity) -> str:
        """Return the quoted name of a class's own table."""
        owner = entity
        while owner.inheritance == "single" and owner.base is not None:
            owner = self.entity(owner.base)
        name = '"' + _table_name(owner).replace('"', '""') + '"'
        schema = owner.schema or self.options.get("metadata_schema")
        if schema and not owner.schema and self.options.get("translate"):
            schema = "tenant"
        return f"{schema}.{name}" if schema else name

    def _class(self, entity: Entity) -> Iterator[str]:
        arguments = list(entity.mapper_arguments)
        yield f"class {entity.name}({entity.base or 'Base'}):"
        if entity.inheritance != "single":
            yield f"    __tablename__ = {_table_name(entity)!r}"
        if entity.base is None:
            yield from self._root_columns(entity, arguments)
        elif entity.inheritance == "joined":
            yield from self._inherited_key(entity, arguments)
        if self.root(entity).polymorphic:
            arguments.append(f"'polymorphic_identity': {entity.name.lower()!r}")
        yield from (f"    {one.source}" for one in entity.fields)
        for relation in entity.relations:
            yield from self._reference(entity, relation)
        yield from self._parent_sides(entity)
        yield from (_link(link) for link in self.links if link.left == entity.name)
        yield from (f"    {_fill(line, entity)}" for line in entity.extras)
        if entity.inheritance != "single":
            yield from self._table_arguments(entity)
        if arguments:
            yield f"    __mapper_args__ = {{{', '.join(arguments)}}}"

    def _root_columns(self, entity: Entity, arguments: list[str]) -> Iterator[str]:
        for name, type_, rest in entity.keys.columns:
            extra = _fill(rest, entity)
            parts = [type_, *([extra] if extra else []), "primary_key=True"]
            yield f"    {name} = mapped_column({', '.join(parts)})"
        if entity.polymorphic:
            yield "    kind = mapped_column(String)"
            arguments.append("'polymorphic_on': 'kind'")
        yield "    tag = mapped_column(String)"
        if entity.code is not None:
            yield f"    code = mapped_column({_fill(entity.code, entity)}, unique=True)"
        if entity.version:
            type_, generator = _VERSIONS[entity.version]
            yield f"    version = mapped_column({type_}, nullable=False)"
            arguments.append(f"'version_id_col': version{generator}")

    def _inherited_key(self, entity: Entity, arguments: list[str]) -> Iterator[str]:
        parent = self.entity(entity.base or "")
        for name, type_, _ in self.root(entity).keys.columns:
            yield f"    {name} = mapped_column({type_}, primary_key=True, autoincrement=False)"
        names = [name for name, _, _ in self.root(entity).keys.columns]
        targets = ", ".join(f"{parent.name}.__table__.c.{name}" for name in names)
        entity.table_arguments = [f"ForeignKeyConstraint({names!r}, [{targets}])"]
        pairs = ", ".join(f"{name} == {parent.name}.__table__.c.{name}" for name in names)
        arguments.append(f"'inherit_condition': and_({pairs})")

    def _reference(self, entity: Entity, relation: Relation) -> Iterator[str]:
        target = self.root(self.entity(relation.target))
        columns = (
            [("code", target.code or "Integer")]
            if relation.by_code
            else [(name, type_) for name, type_, _ in target.keys.columns]
        )
        names = [f"{relation.attribute}_{name}" for name, _ in columns]
        qualified = f"{target.schema or self.options.get('metadata_schema') or ''}."
        table = qualified.lstrip(".") + _table_name(target)
        referred = [f"{table}.{name}" for name, _ in columns]
        rest = f"use_alter=True, name='@{entity.name}{names[0]}'{relation.reference})"
        for attribute, (_, type_) in zip(names, columns, strict=True):
            plain = type_.split(",")[0] if relation.by_code else type_
            parts = [plain, *([f"ForeignKey({referred[0]!r}, {rest}"] if len(names) == 1 else [])]
            parts.append(f"nullable={relation.nullable}")
            yield f"    {attribute} = mapped_column({', '.join(parts)})"
        if len(names) > 1:
            entity.table_arguments = [
                *[
                    one
                    for one in entity.table_arguments
                    if f"'@{entity.name}{names[0]}'" not in one
                ],
                f"ForeignKeyConstraint({names!r}, {referred!r}, {rest}",
            ]
        if relation.sides in {"child", "both"}:
            back = f", back_populates={relation.reverse!r}" if relation.sides == "both" else ""
            listed = ", ".join(f"{entity.name}.{name}" for name in names)
            remote = ""
            if self.root(entity) is target:
                pairs = ", ".join(f"{target.name}.{name}" for name, _ in columns)
                remote = f", remote_side='[{pairs}]'"
            options = "".join(f", {argument}" for argument in relation.child_arguments)
            yield (
                f"    {relation.attribute} = relationship({relation.target!r}, "
                f"foreign_keys='[{listed}]'{remote}{back}{options})"
            )

    def _parent_sides(self, entity: Entity) -> Iterator[str]:
        for owner in self.entities:
            for relation in owner.relations:
                if relation.target == entity.name and relation.sides in {"parent", "both"}:
                    yield self._parent_side(owner, relation)

    def _parent_side(self, owner: Entity, relation: Relation) -> str:
        target = self.root(self.entity(relation.target))
        columns = ["code"] if relation.by_code else [name for name, _, _ in target.keys.columns]
        listed = ", ".join(f"{owner.name}.{relation.attribute}_{name}" for name in columns)
        options = "".join(f", {argument}" for argument in relation.arguments)
        back = f", back_populates={relation.attribute!r}" if relation.sides == "both" else ""
        uselist = "" if relation.is_collection else ", uselist=False"
        return (
            f"    {relation.reverse} = relationship({owner.name!r}, "
            f"foreign_keys='[{listed}]'{back}{uselist}{options})"
        )

    def _link_table(self, link: Link) -> Iterator[str]:
        yield f"{link.attribute}_table = Table('@{link.attribute}', Base.metadata,"
        constraints = []
        for side, name in (("left", link.left), ("right", link.right)):
            entity = self.root(self.entity(name))
            names = [f"{side}_{column}" for column, _, _ in entity.keys.columns]
            for (_, type_, _), column in zip(entity.keys.columns, names, strict=True):
                yield f"    Column('{column}', {type_}, primary_key=True, autoincrement=False),"
            schema = entity.schema or self.options.get("metadata_schema") or ""
            table = (f"{schema}." if schema else "") + _table_name(entity)
            referred = [f"{table}.{column}" for column, _, _ in entity.keys.columns]
            constraints.append(f"    ForeignKeyConstraint({names!r}, {referred!r}),")
        yield from (f"    {extra}," for extra in link.extras)
        yield from constraints
        yield ")"

    def _table_arguments(self, entity: Entity) -> Iterator[str]:
        items = [*entity.table_arguments]
        options = []
        if entity.schema:
            options.append(f"'schema': {entity.schema!r}")
        if entity.partitioned:
            options.append(f"'postgresql_partition_by': 'HASH ({entity.keys.columns[0][0]})'")
        if options:
            items.append(f"{{{', '.join(options)}}}")
        if items:
            yield f"    __table_args__ = ({', '.join(items)},)"


@dataclass
class Example:
    """A world and what a session does in it."""

    world: World
    steps: list[str]

    @property
    def script(self) -> str:
        """Return it as something to read; @ stands for a prefix of names."""
        sql = "\n".join(f"-- {statement}" for statement in self.world.conditions)
        steps = "\n".join(self.steps)
        return f"# {self.world.options}\n{self.world.source}\n{sql}\n{steps}"


_VERSIONS = {
    "counter": ("Integer", ""),
    "uuid": (
        "String",
        ", 'version_id_generator': lambda v: words('version')()",
    ),
}


def _table_name(entity: Entity) -> str:
    return entity.table_name or f"@{entity.name.lower()}"


def _link(link: Link) -> str:
    options = "".join(f", {argument}" for argument in link.arguments)
    return (
        f"    {link.attribute} = relationship({link.right!r}, secondary={link.attribute}_table, "
        f"{_joins(link)}backref='{link.attribute}_of'{options})"
    )


def _joins(link: Link) -> str:
    if link.left != link.right:
        return ""
    name = f"{link.attribute}_table"
    return (
        f"primaryjoin=lambda: {link.left}.id == {name}.c.left_id, "
        f"secondaryjoin=lambda: {link.right}.id == {name}.c.right_id, "
    )


def _fill(source: str, entity: Entity) -> str:
    return source.replace("{name}", entity.name).replace("{lower}", entity.name.lower())


def _features(entity: Entity) -> Iterator[str]:
    yield f"key: {entity.key}"
    if entity.inheritance:
        yield f"inheritance: {entity.inheritance}"
    if entity.version:
        yield f"version: {entity.version}"
    if entity.partitioned:
        yield "partitioned"
    for one in entity.fields:
        yield f"type: {one.type}"
        if one.arguments:
            yield "column: " + one.arguments[0].split("=")[0].split("(")[0]
    for relation in entity.relations:
        kind = "self-reference" if relation.target == entity.name else "reference"
        how = " by code" if relation.by_code else ""
        yield f"{kind}{how}: {relation.sides}"
        if "post_update=True" in relation.arguments + relation.child_arguments:
            yield "post_update"
