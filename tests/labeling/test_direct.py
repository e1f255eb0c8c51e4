"""A labeling function as a loop over columns: it votes as it was written, or is left as it is."""

from typing import Any

import pytest

from labeling.sandbox.direct import direct

COLUMNS = ("a", "b")
ROWS = [(0, "x"), (3, None), (None, "yes"), (7, "x"), (9, "")]


def votes_as_written(code: str) -> list[Any]:
    scope: dict[str, Any] = {}
    exec(code, scope)
    return [scope["labeling_function"](dict(zip(COLUMNS, row, strict=True))) for row in ROWS]


def body(*lines: str) -> str:
    return "def labeling_function(row):\n" + "\n".join(f"    {line}" for line in lines)


SAME = {
    "one expression": body("return 1 if row['a'] and row.get('b') else -1"),
    "a default that is not needed": body("return 1 if row.get('a', 5) == 5 else 2"),
    "a chain of ifs": body(
        '"""Says something."""',
        "if row['a'] is None: return -1",
        "elif row['b'] == 'x':",
        "    if row['a'] > 3: return 1",
        "    else: return 2",
        "pass",
        "if row['b']: return 7",
        "return 9",
    ),
    "code after a return": body("return 1", "return row['a'] / 0"),
    "the end without a return": body("if row['b']: return 1"),
    "a local name": body("words = (row['b'] or '').split('e')", "return len(words)"),
    "a name bound in the expression": body("return n if (n := row['a']) else 8"),
    "an if that may fall through": body("n = 1", "if row['a']:", "    n = 2", "return n"),
    "a loop": body("for n in range(row['a'] or 0):", "    if n > 2: return n", "return -1"),
    "an exception": body("try:", "    return 3 // row['a']", "except Exception:", "    return 4"),
    "an inner function": body("def twice(n):", "    return 2 * n", "return twice(row['a'] or 1)"),
    "a lambda that closes over a column": body(
        "return sorted([3, 1], key=lambda n: n * (row['a'] or -1))[0]"
    ),
    "a comprehension": body("return sum([n for n in range(row['a'] or 0)])"),
    "constants and helpers": (
        "LAPTOP = 2\ndef small(n):\n    return n is None or n < 5\n"
        + body("return LAPTOP if small(row['a']) else -1")
    ),
    "a row of another name": "def labeling_function(x, /):\n    return 1 if x['a'] else 2",
    "the function itself": body("return row['a'] or labeling_function({'a': 5, 'b': ''})"),
}


@pytest.mark.parametrize("code", SAME.values(), ids=SAME.keys())
def test_it_votes_as_the_code_that_it_was_made_from(code: str) -> None:
    written = direct(code, COLUMNS)
    assert written
    scope: dict[str, Any] = {}
    exec(code, scope)
    exec(written, scope)
    assert scope["__direct"](ROWS) == votes_as_written(code)


@pytest.mark.parametrize(
    "code",
    [
        body("return len(row)"),
        body("return 1 if 'a' in row else 2"),
        body("name = 'a'", "return row[name]"),
        body("return row['missing']"),
        body("return row.get('missing', 3)"),
        body("return row.get('a', 1 // 0)"),
        body("row['a'] = 1", "return row['a']"),
        body("other = row", "return other['a']"),
        body("return (lambda row: row['a'])({'a': 1})"),
        body("return [row['a'] for row in [{'a': 1}]][0]"),
        body("try:", "    return 1 // 0", "except Exception as row:", "    return row['a']"),
        body("__0 = 1", "return row['a']"),
        "def labeling_function(row, more=1):\n    return row['a']",
        "def other(row):\n    return row['a']",
        "def labeling_function(row:",
        body("return " + "(" * 300 + "row['a']" + ")" * 300),
    ],
)
def test_what_does_more_with_its_row_is_left_alone(code: str) -> None:
    assert direct(code, COLUMNS) == ""


def test_without_columns_there_is_nothing_to_loop_over() -> None:
    assert direct(body("return 1"), ()) == ""
