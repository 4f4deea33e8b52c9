"""What a server can have beside tables: triggers, policies, privileges, rules."""

from __future__ import annotations

from dataclasses import dataclass

ROLE = "differential_role"
SCHEMAS = ("home", "tenant", "other")  # beside public

LOG_TABLE = "CREATE TABLE @log (n serial, what text)"

# A table's own key may be another at each run, its tag is not.
_LOGGED = "(to_jsonb(new) ->> 'tag')"


@dataclass(frozen=True)
class Condition:
    """SQL after a table was made; {table} is its quoted name, {id} names what has to be unique."""

    sql: tuple[str, ...]
    as_role: bool = False  # the session has the rights of a role and not of the owner
    partitioned: bool = False  # needs a partition


def _function(body: str, when: str, level: str = "ROW", clause: str = "") -> tuple[str, ...]:
    return (
        f"CREATE FUNCTION @{{id}}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER zz{{id}} {when} ON {{table}} {clause}FOR EACH {level} "
        "EXECUTE FUNCTION @{id}()",
    )


_RLS = (
    f"GRANT ALL ON ALL TABLES IN SCHEMA public, home, tenant, other TO {ROLE}",
    f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public, home, tenant, other TO {ROLE}",
)
_POLICY_INSERT = (
    *_RLS,
    "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
    f"CREATE POLICY i ON {{table}} FOR INSERT TO {ROLE} WITH CHECK (tag <> 'o2')",
    f"CREATE POLICY s ON {{table}} FOR SELECT TO {ROLE} USING (true)",
    f"CREATE POLICY u ON {{table}} FOR UPDATE TO {ROLE} USING (true)",
)

CONDITIONS: dict[str, Condition] = {
    "log of rows": Condition(
        _function(
            f"INSERT INTO @log (what) VALUES (TG_OP || {_LOGGED}); RETURN NULL;",
            "AFTER INSERT OR UPDATE",
        )
    ),
    "log before rows": Condition(
        _function(
            f"INSERT INTO @log (what) VALUES (TG_OP || {_LOGGED}); RETURN new;",
            "BEFORE INSERT OR UPDATE",
        )
    ),
    "log of statements": Condition(
        _function(
            "INSERT INTO @log (what) VALUES (TG_OP); RETURN NULL;",
            "AFTER INSERT OR UPDATE OR DELETE",
            "STATEMENT",
        )
    ),
    "log before statements": Condition(
        _function(
            "INSERT INTO @log (what) VALUES (TG_OP); RETURN NULL;", "BEFORE INSERT", "STATEMENT"
        )
    ),
    "log of new rows": Condition(
        _function(
            "INSERT INTO @log (what) SELECT 'new ' || count(*) FROM fresh; RETURN NULL;",
            "AFTER INSERT",
            "STATEMENT",
            "REFERENCING NEW TABLE AS fresh ",
        )
    ),
    "running count": Condition(
        _function(
            "new.tag := new.tag || ' after ' || (SELECT count(*) FROM {table}); RETURN new;",
            "BEFORE INSERT",
        )
    ),
    "deferred log": Condition(
        (
            "CREATE FUNCTION @{id}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO @log (what) VALUES (TG_OP || {_LOGGED}); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER zz{id} AFTER INSERT ON {table} DEFERRABLE INITIALLY "
            "DEFERRED FOR EACH ROW EXECUTE FUNCTION @{id}()",
        )
    ),
    "rows that vanish": Condition(
        _function("IF new.tag = 'o2' THEN RETURN NULL; END IF; RETURN new;", "BEFORE INSERT")
    ),
    "rows refused": Condition(
        _function("IF new.tag = 'o2' THEN RAISE 'not o2'; END IF; RETURN new;", "BEFORE INSERT")
    ),
    "a row refused after": Condition(
        _function("IF new.tag = 'o2' THEN RAISE 'not o2'; END IF; RETURN NULL;", "AFTER INSERT")
    ),
    "trigger of a condition": Condition(
        (
            "CREATE FUNCTION @{id}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO @log (what) VALUES ({_LOGGED}); RETURN NULL; END $$",
            "CREATE TRIGGER zz{id} AFTER INSERT ON {table} FOR EACH ROW "
            "WHEN (new.tag <> 'o1') EXECUTE FUNCTION @{id}()",
        )
    ),
    "rule also": Condition(
        (
            "CREATE RULE zz{id} AS ON INSERT TO {table} DO ALSO "
            "INSERT INTO @log (what) VALUES ('rule')",
        )
    ),
    "unique tags": Condition(("CREATE UNIQUE INDEX @{id} ON {table} (lower(tag))",)),
    "check of tags": Condition(("ALTER TABLE {table} ADD CONSTRAINT @{id} CHECK (tag <> 'o2')",)),
    "volatile tag": Condition(
        ("ALTER TABLE {table} ADD extra text DEFAULT 'x' || nextval('@numbers')",)
    ),
    "counted by the server": Condition(
        (
            "CREATE SEQUENCE @{id}",
            "ALTER TABLE {table} ADD extra integer DEFAULT nextval('@{id}')",
        )
    ),
    "domain with a default": Condition(
        (
            "CREATE DOMAIN @{id} AS bigint DEFAULT nextval('@numbers')",
            "ALTER TABLE {table} ADD extra @{id}",
        )
    ),
    "generated beside": Condition(
        ("ALTER TABLE {table} ADD extra text GENERATED ALWAYS AS (upper(tag)) STORED",)
    ),
    "trigger of a partition": Condition(
        (
            "CREATE FUNCTION @{id}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"INSERT INTO @log (what) VALUES ({_LOGGED}); RETURN NULL; END $$",
            "CREATE TRIGGER zz{id} AFTER INSERT ON {partition} FOR EACH ROW "
            "EXECUTE FUNCTION @{id}()",
        ),
        partitioned=True,
    ),
    "insert policy": Condition(_POLICY_INSERT, as_role=True),
    "select policy": Condition(
        (
            *_RLS,
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY i ON {{table}} FOR INSERT TO {ROLE} WITH CHECK (true)",
            f"CREATE POLICY s ON {{table}} FOR SELECT TO {ROLE} USING (tag <> 'o2')",
        ),
        as_role=True,
    ),
    "no select": Condition((*_RLS, f"REVOKE SELECT ON {{table}} FROM {ROLE}"), as_role=True),
    "no select of a column": Condition(
        (
            *_RLS,
            f"REVOKE ALL ON {{table}} FROM {ROLE}",
            f"GRANT INSERT, UPDATE, DELETE, SELECT (tag) ON {{table}} TO {ROLE}",
        ),
        as_role=True,
    ),
    "no use of sequences": Condition(
        (*_RLS, f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public, home, tenant, other FROM {ROLE}"),
        as_role=True,
    ),
    "rights of a role": Condition(_RLS, as_role=True),
}
