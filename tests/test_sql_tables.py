"""Tables of queries that the judge lets through and of those that it refuses, by dialect."""

from pathlib import Path

import pytest

from tippers.sql import SqlRefused, judge, render

TABLES = Path(__file__).parent / "sql_tables"
DIALECTS = ("postgresql", "mysql")


def queries(dialect: str, kind: str) -> list[str]:
    """The lines of a table without its comments and blank lines."""
    lines = (TABLES / f"{dialect}_{kind}.sql").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("--")]


def cases(kind: str) -> list[tuple[str, str]]:
    return [(dialect, text) for dialect in DIALECTS for text in queries(dialect, kind)]


@pytest.mark.parametrize(("dialect", "text"), cases("passes"))
def test_a_query_that_only_reads_passes(dialect: str, text: str) -> None:
    judge(text, dialect)
    if ":index_values" not in text:
        rendered = render(text, dialect=dialect)
        assert render(rendered, dialect=dialect) == rendered


@pytest.mark.parametrize(("dialect", "text"), cases("refused"))
def test_a_query_that_does_more_is_refused_with_a_sentence(dialect: str, text: str) -> None:
    for refused_by in (judge, lambda sql, dialect: render(sql, dialect=dialect)):
        with pytest.raises(SqlRefused) as refused:
            refused_by(text, dialect)
        assert len(refused.value.detail) > 20
        assert refused.value.field == "sql_query"


@pytest.mark.parametrize("kind", ["passes", "refused"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_tables_are_large_and_say_nothing_twice(dialect: str, kind: str) -> None:
    found = queries(dialect, kind)
    assert len(found) >= 80
    assert len(found) == len(set(found))
