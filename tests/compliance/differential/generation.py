"""Hypothesis strategies for models: every feature beside every other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.compliance.differential.columns import KEYS, NAMES, TYPES
from tests.compliance.differential.conditions import CONDITIONS
from tests.compliance.differential.models import Entity, Field, Link, Relation, World

Draw = Callable[[st.SearchStrategy[Any]], Any]

_CODES = (
    "String, default=words('{name}.code')",
    "Uuid, server_default=func.gen_random_uuid()",
    "Integer, server_default=text(\"nextval('@numbers')\")",
    "Integer, default=counter('{name}.code')",
    "String",
)
_MAPPER_ARGUMENTS = (
    "'eager_defaults': True",
    "'eager_defaults': False",
    "'batch': False",
    "'confirm_deleted_rows': False",
)
_CASCADES = (
    "cascade='all, delete-orphan'",
    "cascade='all'",
    "passive_deletes=True",
    "collection_class=set",
    "order_by='{child}.tag'",
    "lazy='selectin'",
    "lazy='dynamic'",
    "lazy='write_only'",
    "post_update=True",
    "passive_updates=False",
    "single_parent=True",
)
_CHILD_ARGUMENTS = ("post_update=True", "lazy='joined'", "cascade='all'", "passive_deletes=True")
_REFERENCES = (
    ", ondelete='CASCADE'",
    ", deferrable=True, initially='DEFERRED'",
    ", ondelete='SET NULL'",
    ", onupdate='CASCADE'",
)
_EXTRAS = (
    'computed = mapped_column(String, Computed("upper(tag)"))',
    "later = deferred(mapped_column(Integer, server_default='3'))",
    "expression = column_property(func.length(tag))",
    "note = mapped_column(Text, deferred=True)",
    "unmapped_default = mapped_column(Integer, default=counter('{name}.extra'), index=True)",
)
_LINK_EXTRAS = (
    "Column('extra', Integer, server_default='1')",
    "Column('extra', Integer, default=counter('link'))",
    "Column('at', DateTime(timezone=True), server_default=func.now())",
)


def _rarely(draw: Draw, one_in: int = 5) -> bool:
    return bool(draw(st.integers(0, one_in - 1)) == one_in - 1)


@st.composite
def _fields(draw: Draw, prefix: str) -> list[Field]:
    found = []
    for number in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(TYPES)))
        attribute = f"{prefix}{number}"
        column_name, arguments = None, []
        if _rarely(draw, 6):
            pattern = draw(st.sampled_from(NAMES))
            column_name = pattern.replace("{name}", attribute)
            column_name = f"{column_name}{attribute}" if column_name == "order" else column_name
        if TYPES[name].defaults and _rarely(draw, 2):
            default = draw(st.sampled_from(TYPES[name].defaults))
            arguments.append(default.replace("{name}", attribute))
        if _rarely(draw, 8):
            arguments.append("nullable=False")
        if _rarely(draw, 12):
            arguments.append("unique=True")
        if _rarely(draw, 12):
            arguments.append("deferred=True")
        found.append(Field(attribute, name, column_name, tuple(arguments)))
    return found


@st.composite
def _entity(draw: Draw, name: str) -> Entity:
    entity = Entity(name, key=draw(st.sampled_from(list(KEYS))))
    entity.fields = draw(_fields(name.lower()))
    if _rarely(draw):
        entity.code = draw(st.sampled_from(_CODES))
    if _rarely(draw):
        entity.version = draw(st.sampled_from(["counter", "uuid"]))
    if _rarely(draw):
        entity.mapper_arguments = (draw(st.sampled_from(_MAPPER_ARGUMENTS)),)
    if _rarely(draw, 4):
        entity.extras = [draw(st.sampled_from(_EXTRAS))]
    if _rarely(draw, 10):
        entity.table_name = draw(st.sampled_from(["@Tabelle ", "@größe", "@a%b", "@Order"])) + name
    if _rarely(draw, 12):
        entity.schema = "other"
    if _rarely(draw, 12) and entity.code is None and len(entity.keys.columns) == 1:
        entity.partitioned = True
        for one in entity.fields:  # whose unique constraints would need the key
            one.arguments = tuple(a for a in one.arguments if a != "unique=True")
    return entity


@st.composite
def _relation(draw: Draw, child: Entity, parent: Entity, number: int) -> Relation:
    relation = Relation(f"{child.name.lower()}r{number}", parent.name)
    relation.sides = draw(st.sampled_from(["both", "child", "parent", "none"]))
    relation.by_code = parent.code is not None and _rarely(draw, 2)
    relation.is_collection = not _rarely(draw)
    relation.nullable = not _rarely(draw, 6)
    if _rarely(draw, 3):
        argument = draw(st.sampled_from(_CASCADES))
        if relation.is_collection or not argument.startswith(("coll", "lazy='d", "lazy='w")):
            relation.arguments = (argument.replace("{child}", child.name),)
    if _rarely(draw):
        relation.child_arguments = (draw(st.sampled_from(_CHILD_ARGUMENTS)),)
    if _rarely(draw):
        relation.reference = draw(st.sampled_from(_REFERENCES))
    return relation


@st.composite
def worlds(draw: Draw) -> World:
    """Draw one to three hierarchies, what connects them, and what surrounds them."""
    world = World()
    for name in "ABC"[: draw(st.integers(1, 3))]:
        entity = draw(_entity(name))
        world.entities.append(entity)
        if _rarely(draw, 3):
            _add_subclasses(draw, world, entity)
    _add_relations(draw, world)
    roots = [entity for entity in world.entities if entity.base is None]
    if _rarely(draw):
        left, right = draw(st.sampled_from(roots)), draw(st.sampled_from(roots))
        extras = (draw(st.sampled_from(_LINK_EXTRAS)),) if _rarely(draw, 2) else ()
        if left is not right or len(left.keys.columns) == 1:
            world.links.append(Link("links", left.name, right.name, extras))
    for number in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        _add_condition(draw, world, number)
    world.options = {**world.options, **draw(_options())}
    return world


def _add_subclasses(draw: Draw, world: World, entity: Entity) -> None:
    entity.polymorphic = True
    base = entity
    for number in range(draw(st.integers(1, 2))):
        name = f"{entity.name}{number + 1}"
        child = Entity(name, base=base.name)
        child.inheritance = draw(st.sampled_from(["single", "joined"]))
        child.fields = draw(_fields(name.lower()))
        if child.inheritance == "single":
            # They share the table with classes that do not know them.
            for one in child.fields:
                one.arguments = tuple(a for a in one.arguments if a != "nullable=False")
        world.entities.append(child)
        if _rarely(draw, 2):
            base = child


def _add_relations(draw: Draw, world: World) -> None:
    for number in range(draw(st.integers(0, 3))):
        child, parent = draw(st.sampled_from(world.entities)), draw(st.sampled_from(world.entities))
        root = world.root(parent)
        while child.inheritance == "single" and child.base and len(root.keys.columns) > 1:
            child = world.entity(child.base)
        relation = draw(_relation(child, parent, number))
        if root.code is None:
            relation.by_code = False
        if world.root(parent) is not parent:
            relation.by_code = False
        if child.inheritance == "single" or world.root(child) is root:
            relation.nullable = True
        child.relations.append(relation)


def _add_condition(draw: Draw, world: World, number: int) -> None:
    entity = draw(st.sampled_from(world.entities))
    name = draw(st.sampled_from(list(CONDITIONS)))
    condition = CONDITIONS[name]
    if condition.partitioned and not entity.partitioned:
        return
    if entity.base is not None and any("tag" in sql or "extra" in sql for sql in condition.sql):
        entity = world.root(entity)
    levels = any("FOR EACH STATEMENT" in sql or "AFTER" in sql for sql in condition.sql)
    if levels and world.root(entity).keys.stock_mixes_up:
        # Whose key is whose is told by a statement a row, where SQLAlchemy sends one and guesses.
        return
    partition = f'"@{entity.name.lower()}_part0"'
    world.condition_names.append(name)
    for sql in condition.sql:
        filled = sql.replace("{table}", world.table(entity)).replace("{partition}", partition)
        world.conditions.append(filled.replace("{id}", f"c{number}"))
    if condition.as_role:
        world.options["role"] = True


@st.composite
def _options(draw: Draw) -> dict[str, object]:
    options: dict[str, object] = {}
    if _rarely(draw, 3):
        options["expire_on_commit"] = True
    if _rarely(draw, 4):
        options["no_autoflush"] = True
    if _rarely(draw, 3):
        options["cursor_listener"] = True
    if _rarely(draw, 12):
        options["autocommit"] = True
    if _rarely(draw, 3):
        options["listeners"] = draw(
            st.sampled_from(["session", "flush", "update", "attributes", "insert"])
        )
    if _rarely(draw, 10):
        options["metadata_schema"] = "home"
        if _rarely(draw, 2):
            options["translate"] = True
    return options
