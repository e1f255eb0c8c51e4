"""Small labeling functions that Hypothesis grows: the sandbox votes as plain Python does.

Expected votes come from `exec` in this process, on the same rows. What the code reads is pruned,
packed and rewritten on its way, so this holds all of that to the language itself.
"""

import datetime  # noqa: ICN001 - under the name that labeling code has it by
import math
import re
import statistics
from functools import cache
from typing import Any

import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from labeling.policy import judge
from labeling.sandbox.host import FAULT
from labeling.votes import Function, Voting

MODULES = {"re": re, "datetime": datetime, "math": math, "statistics": statistics}
CV_IDS = (1, 2, 3)
ROWS: list[dict[str, Any]] = [
    {"n": n, "x": x, "s": s, "t": datetime.datetime(2024, month, 7, hour, 30, tzinfo=datetime.UTC)}
    for n, x, s, month, hour in (
        (0, 0.5, "abc", 1, 0), (1, -1.25, "", 2, 6), (7, 1e9, "Zürich, b", 12, 23),
        (-3, None, "12", 6, 12), (None, 3.0, None, 3, 3), (40, 0.0, " a,c ", 7, 18),
    )
]  # fmt: skip
TABLE = pa.table(
    {
        "n": pa.array([row["n"] for row in ROWS], pa.int64()),
        "x": pa.array([row["x"] for row in ROWS], pa.float64()),
        "s": pa.array([row["s"] for row in ROWS], pa.string()),
        "t": pa.array([row["t"] for row in ROWS], pa.timestamp("us", "UTC")),
    }
)


def filled(template: str, **parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Source with each {part} grown by its strategy; a part used twice is grown once."""
    return st.fixed_dictionaries(parts).map(lambda grown: template.format(**grown))


NUMBERS = st.sampled_from(
    ["row['n']", "row['x']", "row.get('x')", "row.get('n', 0)", "row['t'].hour", "row['t'].day",
     "0", "1", "2.5", "-3", "len(row['s'])", "len(row)", "LIMIT"]
)  # fmt: skip
TEXTS = st.sampled_from(
    ["row['s']", "row.get('s', '')", "'a'", "'12'", "'b,c'", "row['t'].strftime('%b %Y')"]
)


@cache
def numbers(depth: int) -> st.SearchStrategy[str]:
    if depth == 0:
        return NUMBERS
    a, b, text = numbers(depth - 1), numbers(depth - 1), texts(depth - 1)
    grown = [
        filled("({a} {o} {b})", a=a, b=b, o=st.sampled_from(["+", "-", "*", "/", "//", "%"])),
        filled("-{a}", a=a), filled("abs({a})", a=a), filled("int({a})", a=a),
        filled("round({a}, 1)", a=a), filled("max({a}, {b})", a=a, b=b),
        filled("({a} if {c} else {b})", a=a, b=b, c=conditions(depth - 1)),
        filled("len({t})", t=text), filled("int({t})", t=text), filled("{t}.count('a')", t=text),
        filled("math.floor({a})", a=a), filled("math.sqrt({a})", a=a),
        filled("statistics.mean([{a}, {b}])", a=a, b=b),
        filled("statistics.median([{a}, {b}, 1])", a=a, b=b),
        filled("sum(i for i in ({a}, {b}, 2) if i > 0)", a=a, b=b),
        filled("len(re.findall('[a-c]', {t}))", t=text),
        filled("half({a})", a=a), filled("[{a}, {b}][-1]", a=a, b=b),
        filled("(row['t'] - datetime.datetime(2024, 2, 1, tzinfo=datetime.UTC)).days + {a}", a=a),
        filled("(lambda i: i + {a})({b})", a=a, b=b), filled("dict(k={a}).get('k', {b})", a=a, b=b),
    ]  # fmt: skip
    return st.one_of(NUMBERS, *grown)


@cache
def texts(depth: int) -> st.SearchStrategy[str]:
    if depth == 0:
        return TEXTS
    text, number = texts(depth - 1), numbers(depth - 1)
    grown = [
        filled("{t}{m}", t=text, m=st.sampled_from(
            [".upper()", ".strip()", ".title()", "[::-1]", "[1:]", ".split(',')[0]",
             ".replace('a', 'bb')", ".zfill(4)", ".partition(',')[2]"])),
        filled("({t} + {u})", t=text, u=text), filled("str({n})", n=number),
        filled("f\"{{{n}:>6}}{{{t}!r}}\"", n=st.sampled_from(["row['n']", "LIMIT"]), t=st.just("LIMIT")),
        filled("re.sub('[0-9]', 'c', {t})", t=text), filled("''.join(sorted({t}))", t=text),
    ]  # fmt: skip
    return st.one_of(TEXTS, *grown)


@cache
def conditions(depth: int) -> st.SearchStrategy[str]:
    a, b, text = numbers(depth), numbers(depth), texts(depth)
    order = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
    grown = [
        filled("{a} {o} {b}", a=a, b=b, o=order),
        filled("0 < {a} <= {b}", a=a, b=b),
        filled("{t} in {u}", t=text, u=text),
        filled("{t}.startswith('a')", t=text),
        filled("row['{c}'] is {v}", c=st.sampled_from("nxs"), v=st.sampled_from(["None", "not None"])),
        filled("re.search('^[a-z]+,?', {t})", t=text),
        filled("any(c.isdigit() for c in {t})", t=text),
        filled("{a} in (1, 7, 0.5)", a=a),
    ]  # fmt: skip
    if depth:
        one, other = conditions(depth - 1), conditions(depth - 1)
        grown += [
            filled("(not ({c}))", c=one),
            filled("({c} {w} {d})", c=one, d=other, w=st.sampled_from(["and", "or"])),
        ]
    return st.one_of(*grown)


STATEMENTS = ["return", "if", "elif", "for", "while", "try", "local", "row"]
VOTES = st.sampled_from(["1", "2", "3", "-1", "1", "2", "9", "None", "True"])


def indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


@st.composite
def blocks(  # noqa: PLR0911 - one row per kind of statement
    draw: st.DrawFn, depth: int
) -> list[str]:
    """Lines that may return a vote."""
    kind = draw(st.sampled_from(STATEMENTS))
    if depth == 0 or kind == "return":
        return [f"return {draw(VOTES)}"]
    inner = indented(draw(blocks(depth - 1)))
    after = draw(blocks(depth - 1))
    test = draw(conditions(1))
    match kind:
        case "if":
            return [f"if {test}:", *inner, *after]
        case "elif":
            other = indented(draw(blocks(depth - 1)))
            return [f"if {test}:", *inner, f"elif {draw(conditions(0))}:", *other, "else:",
                    *indented(after)]  # fmt: skip
        case "for":
            return ["for i in range(4):", f"    if {test}:", *indented(inner), "    if i > 1:",
                    "        break", *after]  # fmt: skip
        case "while":
            return ["i = 3", "while i:", "    i -= 1", f"    if {test}:", *indented(inner), *after]
        case "try":
            return ["try:", *indented([f"if {test}:", *inner]),
                    "except (TypeError, ValueError, LookupError):", *indented(after),
                    f"return {draw(VOTES)}"]  # fmt: skip
        case "row":
            return ["def vote(row):", *inner, "    return -1", "if vote(row) == 1:",
                    "    return 2", *after]  # fmt: skip
    return [f"i = {draw(numbers(2))}", f"row_ = {draw(texts(1))}", "if i and row_:", *inner, *after]


def code_of(lines: list[str]) -> str:
    head = ["LIMIT = 7", "def half(i):", "    return i / 2", "def labeling_function(row):"]
    return "\n".join([*head, *indented(lines)])


def plainly(code: str, row: dict[str, Any]) -> int:
    """What CPython makes of it; FAULT where that is no vote."""
    scope: dict[str, Any] = dict(MODULES)
    try:
        exec(code, scope)
        vote = scope["labeling_function"](dict(row))
    except Exception:  # noqa: BLE001 - whatever it is, the row has no vote
        return FAULT
    return vote if type(vote) is int and vote in (-1, *CV_IDS) else FAULT


# Not shrunk: that takes a process for each try, and the code is small and shown.
@settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
@given(lines=blocks(3))
def test_the_sandbox_votes_as_plain_python(lines: list[str]) -> None:
    code = code_of(lines)
    columns = judge(code, allowed_imports=MODULES, values={}).columns
    config = {"code": code, "allowed_imports": list(MODULES)}
    with Voting(Function(1, "f", "custom", config, CV_IDS, 1, columns), TABLE, "n") as voting:
        found = voting.votes(TABLE).tolist()
    assert found == [plainly(code, row) for row in ROWS], code
