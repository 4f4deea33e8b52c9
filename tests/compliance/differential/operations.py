"""Hypothesis strategies for the steps of a session: each is a line or two of Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.compliance.differential.columns import TYPES
from tests.compliance.differential.models import Entity, Relation, World

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass
class Steps:
    """What was drawn so far."""

    world: World
    lines: list[str] = field(default_factory=list)
    objects: list[tuple[str, Entity]] = field(default_factory=list)  # label and class
    unadded: list[str] = field(default_factory=list)
    appended: list[str] = field(default_factory=list)  # to parents, once the child is there
    savepoints: int = 0

    def of(self, name: str) -> list[str]:
        """Return the labels of objects of a class."""
        return [label for label, entity in self.objects if self.world.is_a(entity, name)]


def _rarely(draw: Draw, one_in: int = 5) -> bool:
    return bool(draw(st.integers(0, one_in - 1)) == one_in - 1)


@st.composite
def steps(draw: Draw, world: World, *, changes: bool = False) -> list[str]:
    """Draw what a session does; most of it adds objects, with `changes` it changes them, too."""
    found = Steps(world)
    for _ in range(draw(st.integers(1, 4))):
        for _ in range(draw(st.sampled_from([3, 2, 1, 4, 6]))):
            _add(draw, found)
        if found.unadded:
            order = draw(st.permutations(found.unadded))
            found.lines.append(f"session.add_all([{', '.join(order)}])")
            found.unadded = []
        if _rarely(draw, 2):
            found.lines.append(draw(st.sampled_from(["session.flush()", "session.commit()"])))
        for _ in range(draw(st.sampled_from([0, 1, 0, 2, 3]))):
            draw(st.sampled_from(_OTHERS))(draw, found)
        if changes:
            for _ in range(draw(st.integers(1, 3))):
                draw(st.sampled_from(_MANY))(draw, found)
                found.lines.append("session.flush()")
    return found.lines


def _add(draw: Draw, found: Steps) -> None:
    entity = draw(st.sampled_from(found.world.entities))
    label = f"o{len(found.objects)}"
    arguments = [f"tag={label!r}", *_key(draw, found, entity)]
    for one in found.world.lineage(entity):
        arguments += _values(draw, one)
        for relation in one.relations:
            arguments += _reference(draw, found, relation)
        for link in found.world.links:
            others = found.of(link.right) if link.left == one.name else []
            if others and _rarely(draw, 2):
                other = draw(st.sampled_from(others))
                found.appended.append(f"{label}.{link.attribute}.append({other})")
        if one.code is not None and ("default" not in one.code or _rarely(draw)):
            arguments.append(f"code={_code(one, len(found.objects))}")
    line = f"{label} = {entity.name}({', '.join(arguments)})"
    found.objects.append((label, entity))
    if _rarely(draw, 3):
        found.unadded.append(label)
    else:
        line += f"; session.add({label})"
    found.lines.append(line)
    found.lines += found.appended
    found.appended = []


def _append(relation: Relation, parent: str, child: str) -> str:
    if not relation.is_collection:
        return f"{parent}.{relation.reverse} = {child}"
    by_add = {"collection_class=set", "lazy='write_only'"} & set(relation.arguments)
    return f"{parent}.{relation.reverse}.{'add' if by_add else 'append'}({child})"


def _code(entity: Entity, number: int) -> str:
    if (entity.code or "").startswith("String"):
        return repr(f"c{number}")
    return f"UUID(int={number})" if (entity.code or "").startswith("Uuid") else str(7000 + number)


def _key(draw: Draw, found: Steps, entity: Entity) -> list[str]:
    key = found.world.root(entity).keys
    if not key.required and not _rarely(draw, 8):
        return []
    number = len(found.objects)
    if _rarely(draw, 12):
        number = draw(st.integers(0, 3))  # perhaps another's
    return [
        f"{name}={value.replace('{n}', str(number))}"
        for (name, _, _), value in zip(key.columns, key.explicit, strict=True)
        if value
    ]


def _values(draw: Draw, entity: Entity) -> list[str]:
    found = []
    for one in entity.fields:
        type_ = TYPES[one.type]
        kind = draw(st.sampled_from(["value", "value", "missing", "none", "other", "expression"]))
        if kind == "missing" or (kind == "expression" and not type_.expressions):
            continue
        if kind == "none":
            value = "None"
        elif kind == "expression":
            value = draw(st.sampled_from(type_.expressions))
        else:
            value = draw(st.sampled_from(type_.values)) if kind == "other" else type_.values[0]
        found.append(f"{one.attribute}={value}")
    return found


def _reference(draw: Draw, found: Steps, relation: Relation) -> list[str]:
    parents = found.of(relation.target)
    if not parents or (relation.nullable and _rarely(draw, 3)):
        return []
    parent = draw(st.sampled_from(parents))
    if relation.sides in {"child", "both"} and not _rarely(draw, 8):
        return [f"{relation.attribute}={parent}"]
    if relation.sides == "parent" and not _rarely(draw, 8):
        found.appended.append(_append(relation, parent, f"o{len(found.objects)}"))
        return []
    names = ["code"] if relation.by_code else _key_names(found, relation)
    return [f"{relation.attribute}_{name}={parent}.{name}" for name in names]


def _key_names(found: Steps, relation: Relation) -> list[str]:
    root = found.world.root(found.world.entity(relation.target))
    return [name for name, _, _ in root.keys.columns]


def _some(draw: Draw, found: Steps) -> tuple[str, Entity]:
    chosen: tuple[str, Entity] = draw(st.sampled_from(found.objects))
    return chosen


def _set(draw: Draw, found: Steps) -> None:
    label, entity = _some(draw, found)
    fields = [one for each in found.world.lineage(entity) for one in each.fields]
    if not fields:
        found.lines.append(f"{label}.tag = 'changed {label}'")
        return
    one = draw(st.sampled_from(fields))
    type_ = TYPES[one.type]
    value = draw(st.sampled_from([*type_.values, "None", *type_.expressions]))
    found.lines.append(f"{label}.{one.attribute} = {value}")


def _relate(draw: Draw, found: Steps) -> None:
    pairs = [(child, relation) for child in found.world.entities for relation in child.relations]
    pairs = [(child, relation) for child, relation in pairs if relation.sides != "none"]
    if not pairs:
        _link(draw, found)
        return
    child, relation = draw(st.sampled_from(pairs))
    children, parents = found.of(child.name), found.of(relation.target)
    if not children or not parents:
        return
    one, other = draw(st.sampled_from(children)), draw(st.sampled_from(parents))
    if relation.sides == "child" or (relation.sides == "both" and _rarely(draw, 2)):
        value = "None" if _rarely(draw, 4) else other
        found.lines.append(f"{one}.{relation.attribute} = {value}")
    elif _rarely(draw, 4):
        remove = f".remove({one})" if relation.is_collection else " = None"
        found.lines.append(f"{other}.{relation.reverse}{remove}")
    else:
        found.lines.append(_append(relation, other, one))


def _link(draw: Draw, found: Steps) -> None:
    if not found.world.links:
        return
    link = found.world.links[0]
    lefts, rights = found.of(link.left), found.of(link.right)
    if lefts and rights:
        one, other = draw(st.sampled_from(lefts)), draw(st.sampled_from(rights))
        verb = "remove" if _rarely(draw, 4) else "append"
        found.lines.append(f"{one}.{link.attribute}.{verb}({other})")


def _line(*templates: str) -> Callable[[Draw, Steps], None]:
    def step(draw: Draw, found: Steps) -> None:
        label, entity = _some(draw, found)
        template = draw(st.sampled_from(templates))
        line = template.replace("{o}", label).replace("{C}", entity.name)
        found.lines.append(line.replace("{label}", repr(label)))

    return step


def _savepoint(draw: Draw, found: Steps) -> None:
    if found.savepoints and not _rarely(draw, 3):
        verb = draw(st.sampled_from(["rollback", "commit"]))
        found.lines.append(f"nested{found.savepoints}.{verb}()")
        found.savepoints -= 1
        return
    found.savepoints += 1
    found.lines.append(f"nested{found.savepoints} = session.begin_nested()")


def _merge(draw: Draw, found: Steps) -> None:
    label, entity = _some(draw, found)
    names = [name for name, _, _ in found.world.root(entity).keys.columns]
    keys = ", ".join(f"{name}={label}.{name}" for name in names)
    found.lines.append(f"session.merge({entity.name}({keys}, tag='merged {label}'))")


_OTHERS: list[Callable[[Draw, Steps], None]] = [
    _relate,
    _relate,
    _relate,
    _link,
    _set,
    _set,
    _savepoint,
    _savepoint,
    _merge,
    _line("session.delete({o})"),
    _line("session.flush()"),
    _line("session.flush()", "session.flush([{o}])"),
    _line("session.commit()"),
    _line("session.rollback()"),
    _line("session.expire({o})", "session.expire_all()", "session.refresh({o})"),
    _line("session.expunge({o})", "session.add({o})", "session.expunge_all()"),
    _line("read({o})"),
    _line("{o}.tag = None", "{o}.tag = 'o2'", "{o}.tag = 'x' * 9"),
    _line("session.execute(select({C}.tag)).all()", "session.get({C}, 901)"),
    _line("make_transient({o}); session.add({o})", "session.close()"),
]


def _change_many(draw: Draw, found: Steps) -> None:
    """Change some objects, each in what it likes: neighbours set different columns."""
    for label, entity in draw(st.permutations(found.objects)):
        fields = [one for each in found.world.lineage(entity) for one in each.fields]
        for one in fields:
            if _rarely(draw, 3):
                type_ = TYPES[one.type]
                value = draw(st.sampled_from([*type_.values, "None", *type_.expressions]))
                found.lines.append(f"{label}.{one.attribute} = {value}")
        if _rarely(draw, 2):
            found.lines.append(f"{label}.tag = {label!r} + '!'")


def _move_codes(draw: Draw, found: Steps) -> None:
    """Hand unique codes on, each to the object after it or before it."""
    coded = [(n, one, entity) for n, (one, entity) in enumerate(found.objects) if entity.code]
    step = draw(st.sampled_from([1, -1]))
    for n, label, entity in coded[:: draw(st.sampled_from([1, -1]))]:
        found.lines.append(f"{label}.code = {_code(entity, n + step)}")


def _delete_many(draw: Draw, found: Steps) -> None:
    labels = [label for label, _ in found.objects]
    together = ", ".join(draw(st.lists(st.sampled_from(labels), unique=True, max_size=4)))
    found.lines.append(f"[session.delete(one) for one in [{together}]]")


def _spoil(draw: Draw, found: Steps) -> None:
    """Have rows gone, or at another version, that objects are still there of."""
    label, entity = _some(draw, found)
    table = found.world.table(found.world.root(entity))
    what = draw(st.sampled_from(["DELETE FROM {}", "UPDATE {} SET tag = 'spoilt'"]))
    sql = f"{what.format(table)} WHERE tag = '{label}'"
    found.lines.append(f"session.execute(text({sql!r}))")


_MANY = [_change_many, _change_many, _change_many, _move_codes, _delete_many, _spoil]
