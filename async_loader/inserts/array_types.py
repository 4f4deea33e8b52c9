"""
What asyncpg would ask every new connection of PostgreSQL's own arrays.

asyncpg knows `integer` by its OID, but of `integer[]` it asks the server: three round trips and
5 ms of the server's time for each statement that takes one, on each connection. The OIDs of
built-in types are fixed (PostgreSQL's `pg_type.dat`), so its answer is given beforehand. asyncpg
forgets it, and asks, once a codec of the application's own is set.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

# Name and OID of an array, and the OID of its elements. asyncpg knows text[].
ARRAYS = (
    ("_json", 199, 114),
    ("_bool", 1000, 16),
    ("_bytea", 1001, 17),
    ("_int2", 1005, 21),
    ("_int4", 1007, 23),
    ("_varchar", 1015, 1043),
    ("_int8", 1016, 20),
    ("_float4", 1021, 700),
    ("_float8", 1022, 701),
    ("_timestamp", 1115, 1114),
    ("_date", 1182, 1082),
    ("_time", 1183, 1083),
    ("_timestamptz", 1185, 1184),
    ("_interval", 1187, 1186),
    ("_numeric", 1231, 1700),
    ("_timetz", 1270, 1266),
    ("_uuid", 2951, 2950),
    ("_jsonb", 3807, 3802),
)

# Rows as `asyncpg/introspection.py` asks for them.
_ROWS: list[dict[str, Any]] = [
    {
        "oid": oid,
        "ns": "pg_catalog",
        "name": name,
        "kind": b"b",
        "basetype": None,
        "elemtype": element,
        "elemdelim": ",",
        "range_subtype": None,
        "attrtypoids": None,
        "attrnames": None,
    }
    for name, oid, element in ARRAYS
]
_TOLD = "async_loader.array_types"


def tell_array_types(connection: Connection) -> None:
    """Tell asyncpg, once for each of its connections."""
    tell_pooled(connection.connection)


def tell_pooled(pooled: ConnectionPoolEntry | PoolProxiedConnection) -> None:
    """Tell the connection that a pool has made, or has handed out."""
    if _TOLD in pooled.info:
        return
    pooled.info[_TOLD] = True
    driver: Any = pooled.driver_connection
    # The way in which asyncpg takes the server's answer; a release that has another one asks.
    with suppress(AttributeError, KeyError, TypeError):
        driver._protocol.get_settings().register_data_types(_ROWS)
