"""What the judge of queries lets through, what it refuses, and what values become."""

import sqlite3
import time
from collections.abc import Collection
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from tippers.sql import SqlRefused, judge, render

EITHER = [
    "SELECT 1",
    "SELECT 1;",
    "  select 1 ; ; ",
    "SELECT DISTINCT mac_address FROM user_location_trajectory LIMIT 5000",
    "SELECT mac, count(*) AS n FROM t WHERE a >= '2024-01-01' GROUP BY mac HAVING count(*) > 3",
    "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
    "WITH t(a, b) AS (SELECT 1, 2) SELECT a FROM t",
    "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
    "SELECT a FROM t EXCEPT SELECT b FROM u",
    "SELECT CASE WHEN a IN (1, 2) THEN 'x' ELSE 'y' END FROM t",
    "SELECT row_number() OVER (PARTITION BY mac ORDER BY began DESC) FROM t",
    "SELECT sum(x) OVER (ORDER BY d ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) FROM t",
    "SELECT a.x, b.y FROM a LEFT JOIN b USING (id) JOIN c ON (c.id = a.id)",
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.id = t.id)",
    "SELECT * FROM t WHERE a BETWEEN (1) AND (5) AND NOT (b LIKE ('x%'))",
    "SELECT coalesce(nullif(trim(name), ''), 'none'), upper(left(name, 3)) FROM t",
    "SELECT cast(a AS decimal(10, 2)), round(x, 2), greatest(a, b) FROM t",
    "SELECT substring(name FROM 1 FOR 2), extract(hour FROM began) FROM t",
    "SELECT current_date, current_timestamp",
    "SELECT 'insert into t; drop table t -- /* it''s text */' AS words",
    "SELECT updated_at, deleted, set_id, locked FROM t",
    "SELECT sum(CASE WHEN extract(hour FROM a) < 9 THEN 1 ELSE 0 END) * 1.0 / count(*) FROM t",
    "SELECT count(DISTINCT(space_id)) FROM t",
    "SELECT a FROM (SELECT a FROM t) AS q WHERE a IN (SELECT b FROM u)",
]
POSTGRESQL = [
    "SELECT a::int, b::numeric(10,2), data->>'k', data #>> '{a,b}' FROM t",
    "SELECT extract(epoch FROM (end_time - start_time)) / 3600 FROM t",
    "SELECT date_trunc('hour', t AT TIME ZONE 'Asia/Seoul'), date_part('dow', t) FROM s",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM t",
    "SELECT count(*) FILTER (WHERE a > 1) FROM t GROUP BY GROUPING SETS ((a), ())",
    "SELECT * FROM generate_series(timestamp '2024-01-01', timestamp '2024-01-02', interval '1 hour') AS g(h)",
    "SELECT * FROM a CROSS JOIN LATERAL (SELECT a.x) AS q",
    "SELECT v FROM unnest(array[1, 2]) WITH ORDINALITY AS u(v, n)",
    "SELECT array_agg(x ORDER BY y), string_agg(x, ',') FROM t",
    "SELECT * FROM json_to_recordset('[]') AS x(a int, b text)",
    "SELECT mac ~* '^aa', name ILIKE '%x%', a @> b, a && b, tags ? 'k' FROM t",
    "SELECT (array[1, 2, 3])[1:2], a[1], x ^ 2, @ x FROM t",
    "SELECT E'it\\'s\\n', 'plain \\', x'ff', \"Odd Name\" FROM t",
    "SELECT DISTINCT ON (mac) mac, began FROM t ORDER BY mac, began DESC",
    "SELECT * FROM t TABLESAMPLE bernoulli (10)",
    "SELECT pg_catalog.lower(a) FROM t FETCH FIRST (5) ROWS ONLY",
]
MYSQL = [
    "SELECT `a b`, \"text\", 'it\\'s' FROM `t`",
    "SELECT DATE_FORMAT(d, '%Y-%m'), TIMESTAMPDIFF(MINUTE, a, b) FROM t",
    "SELECT GROUP_CONCAT(DISTINCT x ORDER BY x SEPARATOR ', ') FROM t",
    "SELECT IF(a > 1, 'x', IFNULL(b, 'y')) FROM t",
    "SELECT * FROM t WHERE name REGEXP '^a' OR name RLIKE ('b')",
    "SELECT 1 FROM DUAL",
    "SELECT 0xFF + 0, a DIV 2, a MOD 3, a XOR b, a <=> b FROM t",
    "SELECT d + INTERVAL 1 DAY, DATE_ADD(d, INTERVAL (1 + 1) HOUR) FROM t",
    "SELECT data->>'$.a', JSON_EXTRACT(data, '$.b') FROM t",
    "SELECT CONVERT(x USING utf8mb4), CAST(x AS UNSIGNED) FROM t",
    "SELECT * FROM t FORCE INDEX (i) WHERE MATCH (a) AGAINST ('x')",
    "SELECT INSERT('abc', 1, 1, 'x'), REPLACE(a, 'b', 'c') FROM t",
    "SELECT 1 # a comment\n+ 1",
    "SELECT 5--1 AS six",
]
PASSES = [(dialect, sql) for sql in EITHER for dialect in ("postgresql", "mysql")]
PASSES += [("postgresql", sql) for sql in POSTGRESQL] + [("mysql", sql) for sql in MYSQL]

REFUSED_EITHER = [
    ("", "no query"),
    ("-- only a comment", "no query"),
    ("INSERT INTO t VALUES (1)", "INSERT"),
    ("UPDATE t SET a = 1", "UPDATE"),
    ("DELETE FROM t", "DELETE"),
    ("DROP TABLE t", "DROP"),
    ("CREATE TABLE t (a int)", "CREATE"),
    ("ALTER TABLE t ADD a int", "ALTER"),
    ("TRUNCATE TABLE t", "TRUNCATE"),
    ("GRANT SELECT ON t TO bob", "GRANT"),
    ("SET a = 1", "SET"),
    ("CALL p()", "CALL"),
    ("COMMIT", "COMMIT"),
    ("SELECT 1; SELECT 2", "two statements"),
    ("SELECT 1; DROP TABLE t", "two statements"),
    ("SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */", "/*!"),
    ("SELECT 1 /*M!100000 + sleep(9) */", "/*!"),
    ("SELECT 1 /* not closed", "not closed"),
    ("SELECT 'not closed", "not closed"),
    ("SELECT a INTO b FROM t", "INTO"),
    ("SELECT * FROM t FOR UPDATE", "lock"),
    ("SELECT * FROM t WHERE a IN (SELECT b FROM u FOR SHARE)", "lock"),
    ("SELECT unheard_of(1)", "unheard_of"),
    ("SELECT my_schema.lower('A')", "my_schema.lower"),
    ("SELECT * FROM t WHERE a = :name", ":name"),
    ("SELECT (1", "SQL"),
    ("SELECT 1 FROM", "SQL"),
    ("SELECT \0", "meaning"),
    ("SELECT 'a' 'b'", "side by side"),
    ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "deeply"),
    ("EXPLAIN SELECT 1", "does not begin a query"),
    ("VALUES (1)", "does not begin a query"),
]
REFUSED_POSTGRESQL = [
    ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", "DELETE"),
    ("WITH x AS (UPDATE t SET a = 1 RETURNING a) SELECT * FROM x", "UPDATE"),
    ("WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x", "INTO"),
    ("COPY t TO PROGRAM 'id'", "does not begin a query"),
    ("COPY (SELECT 1) TO STDOUT", "does not begin a query"),
    ("SELECT pg_read_file('/etc/passwd')", "pg_read_file"),
    ("SELECT pg_catalog.pg_sleep(10)", "pg_sleep"),
    ('SELECT "pg_sleep"(10)', "pg_sleep"),
    ("SELECT pg_sleep /* x */ (10)", "pg_sleep"),
    ("SELECT set_config('transaction_read_only', 'off', true)", "set_config"),
    ("SELECT current_setting('data_directory')", "current_setting"),
    ("SELECT lo_import('/etc/passwd')", "lo_import"),
    ("SELECT * FROM dblink('host=x', 'SELECT 1') AS t(a int)", "dblink"),
    ("SELECT query_to_xml('DELETE FROM t', true, true, '')", "query_to_xml"),
    ("SELECT pg_terminate_backend(1)", "pg_terminate_backend"),
    ("SELECT pg_advisory_lock(1)", "pg_advisory_lock"),
    ("SELECT nextval('s')", "nextval"),
    ("WITH pg_sleep(a) AS (SELECT 1) SELECT pg_sleep(10) FROM pg_sleep", "pg_sleep"),
    ("SELECT * FROM t FOR NO KEY UPDATE", "lock"),
    ("SELECT U&'\\0041'", "U&"),
    ("SELECT $$text$$", "$"),
    ("SELECT $1", "$"),
    ("SELECT E'a'\n'\\'; DROP TABLE t --'", "side by side"),
    ("DO 'BEGIN END'", "does not begin a query"),
    ("VACUUM t", "does not begin a query"),
]
REFUSED_MYSQL = [
    ("SELECT LOAD_FILE('/etc/passwd')", "load_file"),
    ("SELECT * FROM t INTO OUTFILE '/tmp/x'", "INTO"),
    ("SELECT * FROM t INTO @a", "@"),
    ("SELECT SLEEP(10)", "sleep"),
    ("SELECT BENCHMARK(1000000000, MD5('x'))", "benchmark"),
    ("SELECT GET_LOCK('a', 10)", "get_lock"),
    ("SELECT `sleep`(10)", "sleep"),
    ("SELECT @@datadir", "@"),
    ("SELECT @a := 1", "@"),
    ("SELECT * FROM t LOCK IN SHARE MODE", "lock"),
    ("SELECT * FROM t PROCEDURE ANALYSE()", "PROCEDURE"),
    ("SELECT NEXT VALUE FOR s", "sequence"),
    ("SELECT _latin1'x'", "introducers"),
    ("SELECT 1 -- \n; DELETE FROM t", "two statements"),
    ("SHOW TABLES", "does not begin a query"),
    ("HANDLER t OPEN", "does not begin a query"),
    ("REPLACE INTO t VALUES (1)", "REPLACE does not begin a query"),
    ("LOAD DATA INFILE 'x' INTO TABLE t", "LOAD does not begin a query"),
    ("KILL 1", "does not begin a query"),
    ("SELECT LAST_INSERT_ID(5)", "last_insert_id"),
]
REFUSED = [(d, sql, words) for sql, words in REFUSED_EITHER for d in ("postgresql", "mysql")]
REFUSED += [("postgresql", sql, words) for sql, words in REFUSED_POSTGRESQL]
REFUSED += [("mysql", sql, words) for sql, words in REFUSED_MYSQL]


@pytest.mark.parametrize(("dialect", "sql"), PASSES)
def test_an_ordinary_query_runs_as_it_was_written(dialect: str, sql: str) -> None:
    judge(sql, dialect)
    rendered = render(sql, dialect=dialect)
    if "#" not in sql or dialect == "postgresql":
        assert rendered == sql.rstrip(" ;")
    assert render(rendered, dialect=dialect) == rendered


@pytest.mark.parametrize(("dialect", "sql", "words"), REFUSED)
def test_what_is_no_plain_query_is_refused_by_name(dialect: str, sql: str, words: str) -> None:
    with pytest.raises(SqlRefused) as refused:
        judge(sql, dialect)
    assert words.lower() in refused.value.detail.lower()
    assert (refused.value.field, refused.value.code) == ("sql_query", "sql_refused")
    with pytest.raises(SqlRefused):
        render(sql, dialect=dialect)


@pytest.mark.parametrize(
    ("dialect", "sql", "plain"),
    [
        ("postgresql", "SELECT 1 -- one\n, 2", "SELECT 1 \n, 2"),
        ("postgresql", "SELECT 1 /* a /* nested */ b */ , 2", "SELECT 1 , 2"),
        ("postgresql", "SELECT 1 -- DROP\r, 2", "SELECT 1 , 2"),
        ("postgresql", "SELECT '-- text', 1 -- gone", "SELECT '-- text', 1"),
        ("mysql", "SELECT 1 # one\n, 2", "SELECT 1 \n, 2"),
        ("mysql", "SELECT 1 /*+ MAX_EXECUTION_TIME(0) */, 2", "SELECT 1 , 2"),
        ("mysql", "SELECT 5--1", "SELECT 5--1"),
        ("postgresql", "SELECT -/**/-1", "SELECT - -1"),
    ],
)
def test_comments_do_not_reach_the_server(dialect: str, sql: str, plain: str) -> None:
    assert render(sql, dialect=dialect) == plain


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(SqlRefused, match=r"line 3"):
        judge("SELECT 1,\n  2,\n  pg_sleep(3)", "postgresql")
    with pytest.raises(SqlRefused, match=r"line 2"):
        judge("SELECT a\nFROM WHERE b", "postgresql")


def test_a_cunning_nesting_is_refused_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(SqlRefused):
        judge("SELECT " + "array[" * 40 + "1" + "]" * 40, "postgresql")
    assert time.monotonic() - begun < 5


# --- templates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "postgresql", "mysql"),
    [
        (2024, "2024", "2024"),
        (-5, "(-5)", "(-5)"),
        (1.5, "1.5", "1.5"),
        (True, "TRUE", "TRUE"),
        (None, "NULL", "NULL"),
        ("O'Neil", "'O''Neil'", "'O''Neil'"),
        ("back\\slash", "'back\\slash'", "'back\\\\slash'"),
        ("\\' OR 1=1 -- ", "'\\'' OR 1=1 -- '", "'\\\\'' OR 1=1 -- '"),
        ([1, "a", None], "1, 'a', NULL", "1, 'a', NULL"),
        ([], "NULL", "NULL"),
        (date(2024, 1, 2), "'2024-01-02'", "'2024-01-02'"),
        (datetime(2024, 1, 2, 3, tzinfo=UTC), "'2024-01-02 03:00:00+00:00'", None),
    ],
)
def test_a_printed_value_becomes_a_literal(value: Any, postgresql: str, mysql: str | None) -> None:
    sql = "SELECT * FROM t WHERE a IN ({{ a }})"
    for dialect, literal in (("postgresql", postgresql), ("mysql", mysql)):
        if literal is not None:
            rendered = render(sql, dialect=dialect, params={"a": value})
            assert rendered == f"SELECT * FROM t WHERE a IN ({literal})"


def test_a_value_within_a_string_stays_in_the_string() -> None:
    sql = "SELECT * FROM t WHERE a LIKE '%{{ a }}%' AND b > interval '{{ n }} days'"
    rendered = render(sql, dialect="postgresql", params={"a": "' OR '1'='1", "n": 7})
    assert rendered == (
        "SELECT * FROM t WHERE a LIKE '%'' OR ''1''=''1%' AND b > interval '7 days'"
    )
    assert render("SELECT E'{{ a }}'", dialect="postgresql", params={"a": "\\'"}) == (
        "SELECT E'\\\\'''"
    )
    assert render('SELECT "{{ a }}"', dialect="mysql", params={"a": 'x" -- \\'}) == (
        'SELECT "x"" -- \\\\"'
    )


@pytest.mark.parametrize("nasty", ["'", "''", "\\", "'; DROP TABLE t; --", "a\nb", "é\u2028", '"'])
def test_a_value_reads_back_as_it_was(nasty: str) -> None:
    rendered = render("SELECT {{ a }} AS a", dialect="postgresql", params={"a": nasty})
    with sqlite3.connect(":memory:") as standard:  # its strings follow the standard's rules too
        assert standard.execute(rendered).fetchone() == (nasty,)


def test_templates_choose_and_loop() -> None:
    sql = "SELECT 1{% if year %} WHERE year = {{ year }}{% endif %}{% for x in xs %} OR a = {{ x }}{% endfor %}"
    params = {"year": 2024, "xs": [1, "b"]}
    assert render(sql, dialect="postgresql", params=params) == (
        "SELECT 1 WHERE year = 2024 OR a = 1 OR a = 'b'"
    )
    assert render(sql, dialect="postgresql", params={"year": 0, "xs": []}) == "SELECT 1"


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT {{ year }}", "'year' is undefined"),
        ("SELECT {{ a.b }}", "no attribute 'b'"),
        ("SELECT {{ a ", "template"),
        ("SELECT {{ nothing() }}", "call"),
        ("SELECT {{ range(10) }}", "call"),
        ("SELECT {{ ''.__class__ }}", "unsafe"),
        ("SELECT {% set x = 1 %}{{ x }}", "assign"),
        ("SELECT {% macro m() %}{% endmacro %}1", "macro"),
        ("SELECT {% include 'x' %}", "include"),
        ("SELECT {{ a | center(99999999) }}", "center"),
        ("SELECT {{ 'a' * 100000000 }}", "billion"),
        ("SELECT {{ 9 ** 999999999 }}", "exponent"),
        ("SELECT {{ '%99999999d' % 1 }}", "billion"),
        ("SELECT {% for x in xs %}{% for y in xs %}1{% endfor %}{% endfor %}", "loop in a loop"),
        ("SELECT t.{{ a }} FROM t", "name"),
        ('SELECT "{{ a }}" FROM t', "name"),
        ("SELECT pre_{{ a }} FROM t", "name"),
        ("SELECT {{ a }}", "{}"),
        ("SELECT '{{ xs }}'", "[1, 2]"),
        ("SELECT {{ huge }}", "number"),
        ("SELECT {{ nul }}", "NUL"),
        ("{{ sql }}", "does not begin a query"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_refused(sql: str, words: str) -> None:
    params = {"a": {}, "xs": [1, 2], "huge": float("inf"), "nul": "\0", "sql": "DROP TABLE t"}
    with pytest.raises(SqlRefused) as refused:
        render(sql, dialect="postgresql", params=params)
    assert words in refused.value.detail


def test_a_template_ends_in_bounded_time_and_size() -> None:
    begun = time.monotonic()
    slow = "SELECT {% for x in xs %}{% if xs|sort|unique|list == x %}{% endif %}{% endfor %}1"
    with pytest.raises(SqlRefused, match="seconds"):
        render(slow, dialect="postgresql", params={"xs": list(range(10_000))})
    large = "SELECT {% for x in xs %}{{ word }}, {% endfor %}1"
    with pytest.raises(SqlRefused, match="characters"):
        render(large, dialect="postgresql", params={"xs": [1] * 5000, "word": "x" * 50_000})
    assert time.monotonic() - begun < 20


def test_a_template_is_judged_before_its_values_are_known() -> None:
    judge("SELECT * FROM t WHERE year = {{ year }} LIMIT {{ n }}", "postgresql", {"n": 5})
    judge("SELECT 1 {% if day %} WHERE d = timestamp {{ day.start }} {% endif %}", "postgresql")
    with pytest.raises(SqlRefused, match="pg_sleep"):
        judge("SELECT pg_sleep({{ seconds }})", "postgresql")
    with pytest.raises(SqlRefused, match="two statements"):
        judge("SELECT {{ a }}; DELETE FROM t", "mysql")


# --- :index_values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "index_type", "postgresql", "mysql"),
    [
        (pa.array([1, 2, None, 1], pa.int32()), None, "'{1,2}'::integer", "1,2"),
        (pa.array([5_000_000_000]), None, "'{5000000000}'::bigint", "5000000000"),
        (pa.array([1.5, -0.25]), None, "'{1.5,-0.25}'::double precision", "1.5,-0.25"),
        (pa.array([0.5]), "numeric", "'{0.5}'::numeric", "0.5"),
        (pa.array(["a'b", 'c"\\']), None, '\'{"a\'\'b","c\\"\\\\"}\'::text', "'a''b','c\"\\\\'"),
        (pa.array(["x"]).dictionary_encode(), None, "'{\"x\"}'::text", "'x'"),
        (pa.array(["NULL", ""]), None, '\'{"NULL",""}\'::text', "'NULL',''"),
        (pa.array([True]), None, "'{\"true\"}'::boolean", "1"),
        (pa.array([date(2024, 1, 2)]), None, "'{\"2024-01-02\"}'::date", "'2024-01-02'"),
        (
            pa.array(["2024-01-02 03:00:00"]).cast(pa.timestamp("us")),
            None,
            "'{\"2024-01-02 03:00:00.000000\"}'::timestamp",
            "'2024-01-02 03:00:00.000000'",
        ),
        (
            pa.array([datetime(2024, 1, 2, 3, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            None,
            "'{\"2024-01-02 03:00:00.000000Z\"}'::timestamptz",
            "'2024-01-02 03:00:00.000000'",
        ),
        (pa.array(["aa:bb:cc:dd:ee:ff"]), "macaddr", "'{\"aa:bb:cc:dd:ee:ff\"}'::macaddr", None),
        (pa.array(["10.0.0.1"]), "inet", "'{\"10.0.0.1\"}'::inet", None),
        (pa.array(["x"]), "text[]); DROP TABLE t --", "'{\"x\"}'::text", "'x'"),
    ],
)
def test_index_values_keep_their_type(
    values: pa.Array, index_type: str | None, postgresql: str, mysql: str | None
) -> None:
    sql = "SELECT a FROM t WHERE a IN (:index_values)"
    expected = {"postgresql": f"SELECT unnest({postgresql}[])", "mysql": mysql}
    for dialect, inside in expected.items():
        if inside is not None:
            rendered = render(sql, dialect=dialect, index_values=values, index_type=index_type)
            assert rendered == f"SELECT a FROM t WHERE a IN ({inside})"


def test_index_values_may_be_empty() -> None:
    sql = "SELECT a FROM t WHERE a NOT IN ( :index_values )"
    none = pa.array([None], pa.string())
    assert "unnest('{}'::text[])" in render(sql, dialect="postgresql", index_values=none)
    assert "WHERE 1 = 0" in render(sql, dialect="mysql", index_values=none)


def test_index_values_may_stand_in_several_places() -> None:
    sql = (
        "WITH a AS (SELECT x FROM t WHERE x IN (:index_values)) -- :index_values\n"
        "SELECT ':index_values' FROM a WHERE y NOT IN (:index_values)"
    )
    values = pa.chunked_array([[1], [2, 1]])
    assert render(sql, dialect="mysql", index_values=values) == (
        "WITH a AS (SELECT x FROM t WHERE x IN (1,2)) \n"
        "SELECT ':index_values' FROM a WHERE y NOT IN (1,2)"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM t WHERE a = :index_values",
        "SELECT a FROM t WHERE a IN (1, :index_values)",
        "SELECT lower(:index_values)",
        "SELECT a FROM t WHERE a IN :index_values",
    ],
)
def test_index_values_stand_alone_in_a_list(sql: str) -> None:
    with pytest.raises(SqlRefused, match=r"IN \(:index_values\)"):
        judge(sql, "postgresql")


def test_an_index_has_no_index_values() -> None:
    sql = "SELECT a FROM t WHERE a IN (:index_values)"
    judge(sql, "postgresql")
    with pytest.raises(SqlRefused, match="rules and features"):
        render(sql, dialect="postgresql")


def test_half_a_million_values_render_in_a_moment() -> None:
    values = pa.array([f"{number:012x}" for number in range(500_000)])
    begun = time.monotonic()
    rendered = render(
        "SELECT a FROM t WHERE a IN (:index_values)", dialect="postgresql", index_values=values
    )
    assert len(rendered) > 500_000 * 15
    assert time.monotonic() - begun < 10


IDENTIFIER = "SELECT {{ c | identifier }} FROM {{ t | identifier }} AS t"


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_identifier_prints_a_quoted_name_that_exists(dialect: str) -> None:
    asked: list[set[str]] = []

    def existing(names: Collection[str]) -> Collection[str]:
        asked.append(set(names))
        return {'odd "`name', "wifi", "sessions"}

    params = {"c": 'odd "`name', "t": "wifi.sessions"}
    text = render(IDENTIFIER, dialect=dialect, params=params, existing_names=existing)
    assert (
        text
        == {
            "postgresql": 'SELECT "odd ""`name" FROM "wifi"."sessions" AS t',
            "mysql": 'SELECT `odd "``name` FROM `wifi`.`sessions` AS t',
        }[dialect]
    )
    assert asked == [{'odd "`name', "wifi", "sessions"}]  # once, for all of them


def test_no_catalogue_is_asked_for_without_identifier() -> None:
    def existing(names: Collection[str]) -> Collection[str]:
        raise AssertionError(names)

    text = render(
        "SELECT {{ a }}", dialect="postgresql", params={"a": "x"}, existing_names=existing
    )
    assert text == "SELECT 'x'"


@pytest.mark.parametrize(
    "name",
    [
        "unknown", "a; DROP TABLE t", 'a"; DROP TABLE t; --', "a`; DROP TABLE t; --", "a, secret",
        "pg_read_file('x')", "a.unknown", "", ".", "a.", "a..b", "a.b.c.d", "a\0", "x" * 300,
        5, None, True, ["a"], {"a": 1},
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_what_names_nothing_is_no_identifier(dialect: str, name: Any) -> None:
    with pytest.raises(SqlRefused) as refused:
        render(
            "SELECT {{ c | identifier }} FROM t",
            dialect=dialect,
            params={"c": name},
            existing_names={"a", "b", "c", "d"}.intersection,
        )
    assert refused.value.field == "query_template_params"


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
@pytest.mark.parametrize(
    "text",
    [
        "SELECT '{{ a | identifier }}'", 'SELECT "{{ a | identifier }}" FROM t',
        "SELECT x{{ a | identifier }} FROM t", "SELECT {{ a | identifier }}{{ a | identifier }}",
        "SELECT {{ a | identifier }}{{ b }} FROM t", "SELECT {{ a | identifier | upper }} FROM t",
        "SELECT {{ (a | identifier) ~ '; DROP' }} FROM t", "SELECT {{ [a | identifier] }} FROM t",
        "SELECT {{ a | identifier }}(1) FROM t", "SELECT a.{{ a | identifier }}.x{{ b }} FROM t",
        "SELECT {{ nothing | identifier }} FROM t", "{{ a | identifier }} FROM t",
    ],
)  # fmt: skip
def test_a_name_stands_by_itself(text: str, dialect: str) -> None:
    with pytest.raises(SqlRefused):
        render(text, dialect=dialect, params={"a": "a", "b": "b"}, existing_names=set)


def test_a_name_opens_no_other_kind_of_name() -> None:
    with pytest.raises(SqlRefused, match="U&"):
        render(
            "SELECT U&{{ a | identifier }} FROM t",
            dialect="postgresql",
            params={"a": "a"},
            existing_names=set,
        )


def test_a_name_is_judged_before_it_is_known() -> None:
    judge(IDENTIFIER, "postgresql", {"t": "sessions"})
    with pytest.raises(SqlRefused, match="DELETE"):
        judge("DELETE FROM {{ t | identifier }}", "postgresql", {})
