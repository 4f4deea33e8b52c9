"""Keys that SQLAlchemy itself hands to the wrong objects: of these there is nothing to compare."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.orm.attributes import instance_state

from tests.compliance.differential.comparing import Observed
from tests.compliance.differential.models import Entity, Example, World
from tests.compliance.differential.observation import Lens


def taken_back_mixed_up(world: World, lens: Lens) -> bool:
    """Tell whether objects whose rows were taken back had the keys of one another."""
    for entity in world.entities:
        drawn = entity.keys.stock_mixes_up if entity.base is None else None
        if drawn is None:
            continue
        states = [
            instance_state(one)
            for _, one in lens.objects()
            if isinstance(one, lens.namespace[entity.name])
        ]
        mine = [s for s in states if s.key is None and not 900 <= (s.dict.get("id") or 900) < 930]
        mine.sort(key=lambda state: state.insert_order or 0)
        keys = [state.dict["id"] for state in mine]
        if keys != sorted(keys, key=drawn):
            return True
    return False


def seen_mixed_up(example: Example, observed: Observed) -> bool:
    """Tell whether an object had the tag of another after some step, which gave it no such tag."""
    return any(
        re.fullmatch(r"'o\d+'", tag) and tag != repr(name)
        for _, seen in observed.steps
        for name, state in seen.items()
        if isinstance(state, dict) and (tag := state.get("loaded", {}).get("tag"))
        if f"{name}.tag = {tag}" not in example.steps
    )


async def mixed_up(admin: Any, example: Example, entity: Entity, lens: Lens) -> bool:
    """Tell whether an object has another one's key: its tag, which nobody changed, tells."""
    table = example.world.table(entity).replace("@", lens.namespace["prefix"])
    tags = {row[0]: row[1] for row in await admin.fetch(f"SELECT id, tag FROM {table}")}
    cls = lens.namespace[entity.name]
    for name, one in lens.objects():
        if not isinstance(one, cls) or "id" not in one.__dict__:
            continue
        tag = one.__dict__.get("tag")
        if tag == name and (tags.get(one.__dict__["id"]) or name).split()[0] != name:
            return True
        # It was loaded again, from the row of another, unless a step gave it that tag.
        if re.fullmatch(r"o\d+", tag or "") and tag != name:
            return f"{name}.tag = {tag!r}" not in example.steps
    return False
