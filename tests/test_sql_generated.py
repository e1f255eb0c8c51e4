"""Queries and values that nobody thought of: what holds for all of them."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pymysql.converters import decoders
from pytest_django.fixtures import Settings

from connections import mysql, postgresql
from connections.query import Target
from tests.mariadb import MariaDB
from tippers import sql
from tippers.sql import SqlRefused

DIALECTS = ["postgresql", "mysql"]
FEW = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,  # a change that breaks one is found by the change, not by a later run
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Texts with what could end a literal or begin something else far more often than by chance.
NASTY = st.lists(
    st.one_of(
        st.sampled_from(
            ["'", "''", '"', "\\", "\\'", "`", "--", "-- ", "/*", "*/", "/*!", ";", "$$", "#", "%",
             "{{", "}}", "{%", ":index_values", "\n", "\r", "\u2028", "\u202e", "é", "漢", "😀", "E'",
             " OR 1=1", "{", "}", ",", "NULL", "\x7f", "\x01"]
        ),
        st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"),
    ),
    max_size=12,
).map("".join)  # fmt: skip


# --- a small grammar -------------------------------------------------------------------------

NAMES = st.sampled_from(["mac", "space_id", "began", "t.mac", "updated_at", "count_of", '"a b"'])
# Without what a template or an escape would be, which both dialects read the same way then.
STRINGS = NASTY.map(lambda text: "'" + re.sub(r"[\\{}]", "", text).replace("'", "''") + "'")
NUMBERS = st.one_of(
    st.integers(0, 10**12).map(str), st.floats(0, 1e6).map(lambda number: f"{number:f}")
)
COMMENTS = st.sampled_from(["", " ", "\n", " /* it's; DROP */ ", " -- x'; DELETE\n", " -- ;\n"])


def spaced(*parts: Any) -> st.SearchStrategy[str]:
    """The parts in order with blanks or comments between."""
    pieces = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts]
    return st.tuples(*[each for piece in pieces for each in (piece, COMMENTS)]).map(
        lambda found: "".join(x if x.strip(" ") else " " for x in found[:-1])
    )


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "<", ">=", "<>", "=", "AND", "OR"])
    functions = st.sampled_from(["lower", "coalesce", "count", "max", "abs", "concat"])
    return st.one_of(
        spaced("(", inner, operators, inner, ")"),
        spaced(functions, "(", inner, ")"),
        spaced("CASE WHEN", inner, "THEN", inner, "ELSE", inner, "END"),
        spaced("(", inner, "IN (", inner, ",", inner, "))"),
        spaced("(", inner, "IS NOT NULL )"),
        spaced("CAST(", inner, "AS decimal(10, 2))"),
        spaced("row_number() OVER (PARTITION BY", inner, "ORDER BY", inner, "DESC)"),
    )


EXPRESSIONS = st.recursive(st.one_of(NAMES, NUMBERS, STRINGS), compound, max_leaves=6)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        spaced("SELECT", EXPRESSIONS, "AS a,", EXPRESSIONS, "AS b FROM (", inner, ") AS t"),
        spaced("SELECT DISTINCT mac FROM t WHERE mac IN (", inner, ") ORDER BY 1 LIMIT 5"),
        spaced("SELECT 1 UNION ALL", inner),
        spaced("SELECT a FROM t WHERE EXISTS (", inner, ") GROUP BY a HAVING", EXPRESSIONS),
    )


SELECTS = st.recursive(
    st.one_of(
        spaced("SELECT", EXPRESSIONS, "FROM t WHERE", EXPRESSIONS),
        spaced("SELECT mac FROM t LEFT JOIN u ON", EXPRESSIONS),
    ),
    nested,
    max_leaves=3,
)
QUERIES = st.one_of(SELECTS, spaced("WITH q AS (", SELECTS, ") SELECT * FROM q"))


def for_mysql(text: str) -> str:
    return text.replace('"a b"', "`a b`")


@FEW
@given(text=QUERIES)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_generated_query_passes_and_is_rendered_once_and_for_all(dialect: str, text: str) -> None:
    text = text if dialect == "postgresql" else for_mysql(text)
    sql.judge(text, dialect)
    rendered = sql.render(text, dialect=dialect)
    assert sql.render(rendered, dialect=dialect) == rendered


@FEW
@given(
    text=QUERIES,
    harm=st.sampled_from(["pg_sleep(1)", "load_file('x')", "(DELETE FROM t)", "1; SELECT 2"]),
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_harm_in_the_place_of_any_column_is_refused(dialect: str, text: str, harm: str) -> None:
    text = text if dialect == "postgresql" else for_mysql(text)
    columns = [token for token in sql._scan(text, dialect) if token.text == "mac"]
    assume(columns)
    for token in columns:
        with pytest.raises(SqlRefused):
            sql.render(f"{text[: token.start]}{harm}{text[token.end :]}", dialect=dialect)


# --- values through the real servers ---------------------------------------------------------


@pytest.fixture(scope="module")
def servers(mariadb: MariaDB) -> dict[str, Target]:
    """No table of theirs is read, so the databases that are always there serve."""
    postgresql = Target.from_url(os.environ["DATABASE_URL"])
    return {
        "postgresql": replace(postgresql, database="postgres"),
        "mysql": mariadb.target("information_schema"),
    }


Ask = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def ask(
    request: pytest.FixtureRequest, servers: dict[str, Target], settings: Settings
) -> Iterator[tuple[str, Ask]]:
    """A dialect, and what asks its server within one fenced session."""
    settings.ALLOWED_DB_NETWORKS = ["127.0.0.0/8", "::1/128"]
    with ExitStack() as session:
        if request.param == "postgresql":
            cursor = session.enter_context(postgresql._transaction(servers[request.param], 60))
        else:
            connection = session.enter_context(mysql._connected(servers[request.param], 60))
            connection.decoders = decoders
            cursor = session.enter_context(connection.cursor())

        def asked(text: str) -> list[tuple[Any, ...]]:
            cursor.execute(text)
            return list(cursor.fetchall())

        yield request.param, asked


@FEW
@given(texts=st.lists(NASTY, min_size=3, max_size=3))
@pytest.mark.parametrize("ask", DIALECTS, indirect=True)
def test_a_text_comes_back_from_the_server_as_it_was(
    ask: tuple[str, Ask], texts: list[str]
) -> None:
    dialect, answered = ask
    opening = "E'" if dialect == "postgresql" else '"'
    template = (
        "SELECT {{ a }} AS a, '<{{ b }}>' AS b, /* {{ a }} */ "
        f"{opening}{{{{ c }}}}\\n{opening[-1]} AS c -- {{{{ b | upper }}}}"
    )
    params = dict(zip("abc", texts, strict=True))
    text = sql.render(template, dialect=dialect, params=params)
    assert answered(text) == [(texts[0], f"<{texts[1]}>", f"{texts[2]}\n")]


@FEW
@given(
    number=st.integers(-(10**17), 10**17),
    fraction=st.floats(-1e15, 1e15, allow_nan=False),
    truth=st.booleans(),
    day=st.dates(date(1000, 1, 1), date(9999, 12, 31)),
)
@pytest.mark.parametrize("ask", DIALECTS, indirect=True)
def test_numbers_and_times_come_back_as_they_were(
    ask: tuple[str, Ask], number: int, fraction: float, truth: bool, day: date
) -> None:
    dialect, answered = ask
    exact = "double precision" if dialect == "postgresql" else "double"
    text = sql.render(
        f"SELECT 0 -{{{{ n }}}} AS n, CAST({{{{ f }}}} AS {exact}) AS f, {{{{ t }}}} AS t, "
        "CAST({{ d }} AS date) AS d",
        dialect=dialect,
        params={"n": number, "f": fraction, "t": truth, "d": day},
    )
    ((n, f, t, d),) = answered(text)
    assert (n, float(f), bool(t), d) == (-number, fraction, truth, day)


@FEW
@given(texts=st.lists(NASTY, unique=True, min_size=1, max_size=8))
@pytest.mark.parametrize("ask", DIALECTS, indirect=True)
def test_index_values_find_themselves_and_nothing_else(
    ask: tuple[str, Ask], texts: list[str]
) -> None:
    """As many rows as there are values, each compared by its bytes."""
    dialect, answered = ask
    compared = '{0} COLLATE "C"' if dialect == "postgresql" else "BINARY {0}"
    rows = " UNION ALL ".join(
        f"SELECT {number} AS n, {{{{ v{number} }}}} AS v" for number in range(len(texts))
    )
    text = sql.render(
        f"SELECT n FROM ({rows}) q WHERE {compared.format('v')} IN (:index_values) ORDER BY n",
        dialect=dialect,
        params={f"v{number}": text for number, text in enumerate(texts)},
        index_values=pa.array(texts[1:], pa.string()),
    )
    assert [n for (n,) in answered(text)] == list(range(1, len(texts)))
