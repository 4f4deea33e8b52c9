"""What a column can be: its type with values, where a value comes from when there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnType:
    """A type as source text, values for it, and SQL expressions that have it."""

    source: str
    values: tuple[str, ...]
    expressions: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()  # arguments of mapped_column
    volatile: bool = False  # what is stored is another value at each run


_INT_EXPRESSIONS = (
    "literal(2) + 3",
    "func.abs(-7)",
    "text('1 + 1')",
    "select(func.count()).select_from(A.__table__).scalar_subquery()",
    "null()",
)
_TEXT_EXPRESSIONS = ("func.lower('ABC')", "literal('a') + 'b'", "text(\"'x'\")", "null()")
_INT_DEFAULTS = (
    "default=7",
    "default=counter('{name}')",
    "server_default='5'",
    "server_default=text(\"nextval('@numbers')\")",
    "default=literal(3) + 4",
    "server_default=FetchedValue()",
    "insert_default=0, onupdate=counter('{name}.update')",
    "onupdate=func.abs(-3)",
    "server_default='1', server_onupdate=FetchedValue()",
)
_TEXT_DEFAULTS = (
    "default='none'",
    "default=words('{name}')",
    "default=contextual('{name}')",
    "server_default='new'",
    "server_default=text(\"'n' || nextval('@numbers')\")",
    "default=func.lower('ABC')",
    "default=called('{name}', None)",
    "default='', onupdate=words('{name}.update')",
)

TYPES: dict[str, ColumnType] = {
    "int": ColumnType("Integer", ("1", "0", "-5", "True"), _INT_EXPRESSIONS, _INT_DEFAULTS),
    "text": ColumnType(
        "Text",
        ("'a'", "''", "'é %s %% {0} $1 :x'", "'x' * 3000"),
        _TEXT_EXPRESSIONS,
        _TEXT_DEFAULTS,
    ),
    "varchar": ColumnType(
        "String(5)", ("'abc'", "''", "'too long'"), _TEXT_EXPRESSIONS, _TEXT_DEFAULTS[:4]
    ),
    "bigint": ColumnType("BigInteger", ("1", "2**40"), _INT_EXPRESSIONS, _INT_DEFAULTS),
    "smallint": ColumnType("SmallInteger", ("1", "2", "40000"), (), _INT_DEFAULTS[:3]),
    "char": ColumnType("CHAR(3)", ("'a'", "'ab '"), (), ("default='x'",)),
    "bool": ColumnType("Boolean", ("True", "False", "1"), ("literal(True)",), ("default=False",)),
    "numeric": ColumnType(
        "Numeric(10, 2)",
        ("Decimal('1.50')", "2", "3.25", "Decimal('NaN')", "True"),
        ("literal(2) + 3",),
        ("default=Decimal('0.1')", "server_default='1.25'"),
    ),
    "numeric_float": ColumnType("Numeric(10, 2, asdecimal=False)", ("1.5", "2", "Decimal('3')")),
    "float": ColumnType("Float", ("1.5", "2", "Decimal('1.25')", "True", "float('inf')")),
    "date": ColumnType("Date", ("date(2001, 2, 3)", "datetime(2001, 2, 3, 4, 5)")),
    "naive": ColumnType(
        "DateTime",
        ("datetime(2001, 2, 3)", "datetime(2001, 2, 3, 4, 5, 6, 7)", "date(2001, 2, 3)"),
    ),
    "aware": ColumnType(
        "DateTime(timezone=True)",
        (
            "datetime(2001, 2, 3, 4, tzinfo=UTC)",
            "datetime(2001, 2, 3, 4, tzinfo=timezone(timedelta(hours=5)))",
            "datetime(2001, 2, 3)",
            "date(2001, 2, 3)",
        ),
        ("func.now()",),
        (
            "server_default=func.now()",
            "default=func.now()",
            "default=func.now(), onupdate=func.now()",
        ),
    ),
    "time": ColumnType("Time", ("time(1, 2, 3)", "time(23, 59, tzinfo=UTC)")),
    "timetz": ColumnType("Time(timezone=True)", ("time(1, 2, 3, tzinfo=UTC)", "time(1, 2)")),
    "interval": ColumnType("Interval", ("timedelta(days=1, seconds=3)", "timedelta(0)")),
    "binary": ColumnType(
        "LargeBinary",
        ("b'abc'", "b''", "bytearray(b'x')", "memoryview(b'yz')", "array('b', [1, 2])", "'text'"),
        (),
        ("default=b'd'",),
    ),
    "json": ColumnType("JSON", ("{'a': 1}", "None", "[1, 'x']", "JSON.NULL", "'s'", "3")),
    "jsonb": ColumnType(
        "JSONB",
        ("{'a': None}", "None", "JSON.NULL", "[]", "'s'"),
        ("func.jsonb_build_object('a', 1)", "null()"),
        ("default=dict", "default={}", "server_default='{}'", "default=JSON.NULL"),
    ),
    "json_none": ColumnType("JSONB(none_as_null=True)", ("{'a': 1}", "None", "null()")),
    "mutable": ColumnType(
        "MutableDict.as_mutable(JSONB)", ("{'a': 1}", "{}"), (), ("default=dict",)
    ),
    "ints": ColumnType(
        "ARRAY(Integer)", ("[1, 2]", "[]", "[None]", "(3,)"), (), ("server_default='{}'",)
    ),
    "strings": ColumnType(
        "ARRAY(String)", ("['a', 'b']", "['é{}\"']", "[]"), (), ("default=list",)
    ),
    "matrix": ColumnType("ARRAY(Integer, dimensions=2)", ("[[1, 2], [3, 4]]", "[[5]]")),
    "mutable_list": ColumnType("MutableList.as_mutable(ARRAY(Integer))", ("[1]", "[2, 3]")),
    "enum": ColumnType(
        "Enum(Color, name='@color')",
        ("Color.red", "Color.green", "'blue'", "'none of these'"),
        ("literal(Color.red, Enum(Color, name='@color'))",),
        ("default=Color.blue", "server_default='red'"),
    ),
    "enum_text": ColumnType("Enum('a', 'b', name='@letter', native_enum=False)", ("'a'", "'b'")),
    "enums": ColumnType(
        "ARRAY(Enum(Color, name='@colors'))", ("[Color.red]", "[Color.red, Color.blue]", "[]")
    ),
    "enum_values": ColumnType(
        "Enum(Color, name='@valued', values_callable=lambda e: [m.value for m in e])",
        ("Color.red", "Color.blue"),
    ),
    "range": ColumnType(
        "INT4RANGE", ("Range(1, 5)", "Range(empty=True)", "Range(1, 5, bounds='[]')")
    ),
    "tstzrange": ColumnType("TSTZRANGE", ("Range(datetime(2001, 1, 1, tzinfo=UTC), None)",)),
    "multirange": ColumnType("INT4MULTIRANGE", ("[Range(1, 2), Range(5, 6)]", "[]")),
    "uuid": ColumnType(
        "Uuid",
        ("UUID(int=5)", "UUID(int=6)", "'00000000-0000-0000-0000-000000000007'"),
        (),
        ("default=uuid_counter('{name}')",),
    ),
    "uuid_text": ColumnType(
        "Uuid(as_uuid=False)", ("'00000000-0000-0000-0000-000000000005'", "UUID(int=6)")
    ),
    "uuid_char": ColumnType("Uuid(native_uuid=False)", ("UUID(int=5)", "UUID(int=6)")),
    "citext": ColumnType("CITEXT", ("'Ab'", "'aB'")),
    "hstore": ColumnType("HSTORE", ("{'a': '1'}", "{}", "{'b': None}")),
    "inet": ColumnType("INET", ("'10.0.0.1'", "'::1'")),
    "macaddr": ColumnType("MACADDR", ("'08:00:2b:01:02:03'",)),
    "money": ColumnType("MONEY", ("'1.50'",)),
    "tsvector": ColumnType("TSVECTOR", ("'cat'",), ("func.to_tsvector('simple', 'a cat')",)),
    "bit": ColumnType("BIT(3)", ("'101'",)),
    "domain": ColumnType(
        "DOMAIN('@positive', Integer, check=text('VALUE > 0'))",
        ("1", "2", "-1"),
        ("literal(2) + 3",),
    ),
    "pickle": ColumnType("PickleType", ("{'a': (1, 2)}", "[3]")),
    "lowered": ColumnType("Lowered", ("'ABC'", "'x'"), _TEXT_EXPRESSIONS, ("default='DEF'",)),
    "shown": ColumnType("Shown", ("'ABC'", "'x'"), (), ("server_default='new'", "default='d'")),
    "both": ColumnType("Both", ("1", "2")),
    "nonced": ColumnType("Nonced", ("'a'", "'b'"), (), ("default='n'", "default=words('{name}')")),
    "hashed": ColumnType("Hashed", ("'a'", "'b'"), (), ("default='n'",)),
    "doubled": ColumnType("Doubled", ("1", "2"), (), ("server_default='5'",)),
}

NAMES = ("{name}", "Größe {name}", "order", "a b%{name}", "{name}_col", 'q"{name}')


@dataclass(frozen=True)
class Key:
    """A kind of primary key: its columns (attribute, type, arguments) and explicit values."""

    columns: tuple[tuple[str, str, str], ...]
    explicit: tuple[str, ...]  # a value for each column, of a number n; '' where never given
    required: bool = False  # an object without one cannot be inserted
    random: bool = False  # another one at each run
    stock_mixes_up: bool = False  # SQLAlchemy sorts what is returned, and these do not ascend
    sql: tuple[str, ...] = ()  # beside the table; {table} is its quoted name


def _single(type_: str, arguments: str, explicit: str, **rest: object) -> Key:
    return Key((("id", type_, arguments),), (explicit,), **rest)  # type: ignore[arg-type]  # flags


_TRIGGER = (
    "CREATE FUNCTION @{lower}_key() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN {body}; RETURN new; END $$",
    "CREATE TRIGGER k BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION @{lower}_key()",
)


def _trigger(body: str) -> tuple[str, ...]:
    return tuple(sql.replace("{body}", body) for sql in _TRIGGER)


_INT = "900 + {n}"
_UUID = "UUID(int=900 + {n})"

KEYS: dict[str, Key] = {
    "serial": _single("Integer", "", _INT),
    "bigserial": _single("BigInteger", "", _INT),
    "identity": _single("Integer", "Identity()", _INT),
    "identity_always": _single("Integer", "Identity(always=True)", ""),
    "identity_descending": _single(
        "Integer", "Identity(start=500, increment=-1, minvalue=1, maxvalue=500)", _INT
    ),
    "identity_steps": _single("Integer", "Identity(start=100, increment=10)", _INT),
    "identity_cycle": _single(
        "Integer",
        "Identity(minvalue=1, maxvalue=12, start=10, cycle=True)",
        _INT,
        stock_mixes_up=True,
    ),
    "sequence": _single("Integer", "Sequence('@{lower}_own')", _INT),
    "sequence_descending": _single(
        "Integer",
        "Sequence('@{lower}_own', start=500, increment=-1, minvalue=1, maxvalue=500)",
        _INT,
    ),
    "sequence_default": _single(
        "Integer", "server_default=Sequence('@{lower}_own').next_value()", _INT
    ),
    "server_descending": _single(
        "Integer", "server_default=text(\"1000 - nextval('@numbers')\")", _INT
    ),
    "counter": _single("Integer", "default=counter('{name}.id'), autoincrement=False", _INT),
    "counter_descending": _single("Integer", "default=descending('{name}.id')", _INT),
    "uuid": _single("Uuid", "default=uuid_counter('{name}.id')", _UUID),
    "uuid_server": _single("Uuid", "server_default=func.gen_random_uuid()", _UUID, random=True),
    "string_counter": _single("String", "default=words('{name}.id')", "'k{n}'"),
    "contextual": _single("String", "default=contextual('{name}.id')", "'k{n}'"),
    "sql_default": _single(
        "Integer", "default=text(\"nextval('@numbers')\"), autoincrement=False", _INT
    ),
    "natural": _single("Integer", "autoincrement=False", _INT, required=True),
    "natural_string": _single("String(10)", "", "'k{n}'", required=True),
    "shown": _single("Shown", "default=words('{name}.id')", "'k{n}'"),
    "flipped_by_trigger": _single(
        "Integer",
        "",
        _INT,
        sql=_trigger("new.id := 1000 - new.id"),
        stock_mixes_up=True,
    ),
    "by_trigger": _single(
        "Integer",
        "server_default=FetchedValue(), autoincrement=False",
        "",
        sql=_trigger("new.id := 1000 - nextval('@numbers')"),
    ),
    "pair": Key(
        (
            ("id", "Integer", "autoincrement=False"),
            ("part", "String", "default=words('{name}.part')"),
        ),
        (_INT, ""),
        required=True,
    ),
    "pair_of_defaults": Key(
        (
            ("id", "Uuid", "default=uuid_counter('{name}.id')"),
            ("part", "Integer", "default=counter('{name}.part'), autoincrement=False"),
        ),
        (_UUID, "{n}"),
    ),
    "pair_serial": Key(
        (("id", "Integer", "Identity()"), ("part", "String", "")), (_INT, "'p{n}'"), required=True
    ),
    "pair_server": Key(
        (
            ("id", "Integer", "autoincrement=False"),
            ("part", "Integer", "server_default='4', autoincrement=False"),
        ),
        (_INT, "{n}"),
        required=True,
    ),
}
