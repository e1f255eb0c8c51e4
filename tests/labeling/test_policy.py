"""What code may be saved, and what its writer is told otherwise."""

import keyword

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labeling.policy import CodeRefused, constants, judge, template

VALUES = {1: "STATIC", 2: "LAPTOP", 3: "Work Laptop"}


def refused(code: str, *, allowed_imports: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(CodeRefused) as caught:
        judge(code, allowed_imports=allowed_imports, values=VALUES)
    return caught.value.problems


def body(*lines: str) -> str:
    return "def labeling_function(row):\n" + "\n".join(f"    {line}" for line in lines)


@pytest.mark.parametrize(
    "code",
    [
        (
            "STATIC = 1\nABSTAIN = -1\n\ndef labeling_function(row):\n"
            "    if row['connection_count'] >= 0.8 and row['distinct_ap'] == 1:\n"
            "        return STATIC\n    return ABSTAIN"
        ),
        (
            '"""What it is for."""\nimport re\nPATTERN = re.compile(r"^aa")\n'
            "def labeling_function(row):\n    return 1 if PATTERN.search(row['mac']) else -1"
        ),
        (
            "from datetime import datetime, timedelta\nEPOCH = datetime(2024, 1, 1)\n"
            "def labeling_function(row):\n    return 1 if row['t'] - EPOCH > timedelta(days=1) else -1"
        ),
        body("return 1 if math.isclose(row['a'], 1.0) else -1"),
        (
            "FLOORS = frozenset({'1', '2'})\nSIZES = (1, (2, 3))\ndef half(x):\n    return x / 2\n"
            "def labeling_function(row):\n    return 1 if row['floor'] in FLOORS else -1"
        ),
        body("seen = {}", "for x in [1, 2]:", "    seen[x] = 1", "return max(seen.values())"),
        body(
            "try:", "    return int(row['a'])", "except (ValueError, TypeError):", "    return -1"
        ),
        body("kind = f\"{row['a']:>5}\"", "return 1 if any(c == 'x' for c in kind) else -1"),
    ],
)
def test_ordinary_code_may_be_saved(code: str) -> None:
    judge(code, allowed_imports=("re", "datetime", "math"), values=VALUES)


@pytest.mark.parametrize(
    ("code", "line", "said"),
    [
        (body("return ().__class__.__base__"), 2, "insides of objects"),
        (body("return '{0.x}'.format(row)"), 2, "f-string"),
        (body("f = 'x'.format_map", "return 1"), 2, "f-string"),
        (body("g = (x for x in row)", "return g.gi_frame"), 3, "insides"),
        (body("try:", "    1 / 0", "except Exception as e:", "    return e.obj"), 5, "out of reach"),
        (body("return e.tb_frame.f_back"), 2, "insides"),
        ("import os\n" + body("return 1"), 1, "os cannot be imported"),
        ("import re\n" + body("return 1"), 1, "not in allowed_imports"),
        ("from statistics import sys\n" + body("return 1"), 1, "no sys"),
        ("from . import x\n" + body("return 1"), 1, "relative import"),
        (body("return eval('1')"), 2, "the name eval is not available"),
        (body("return open('/etc/passwd')"), 2, "the name open is not available"),
        (body("return np.mean(row)"), 2, "the name np is not available"),
        (body("return __import__('os')"), 2, "not available"),
        (body("__x = 1", "return __x"), 2, "begin it with a letter"),
        ("class A:\n    pass\n" + body("return 1"), 1, "class"),
        ("@property\n" + body("return 1"), 2, "decorator"),
        (body("global x", "x = 1", "return 1"), 2, "global"),
        (body("x = 1", "def f():", "    nonlocal x", "return x"), 4, "nonlocal"),
        (body("match row:", "    case object(__class__=c):", "        return c"), 2, "match"),
        (body("yield 1"), 2, "generator"),
        (body("with row as f:", "    return 1"), 2, "with"),
        (body("try:", "    return 1", "except* ValueError:", "    pass"), 2, "except"),
        ("async def f():\n    pass\n" + body("return 1"), 1, "async"),
        ("SEEN = []\n" + body("return 1"), 1, "must not be changeable"),
        ("SEEN = ([],)\n" + body("return 1"), 1, "must not be changeable"),
        ("SEEN = max([], [])\n" + body("return 1"), 1, "must not be changeable"),
        ("SEEN = max((), default=[])\n" + body("return 1"), 1, "must not be changeable"),
        ("SEEN = sum((), [])\n" + body("return 1"), 1, "must not be changeable"),
        ("tuple = list\nSEEN = tuple()\n" + body("return 1"), 2, "must not be changeable"),
        ("SEEN = iter((1, 2))\n" + body("return 1"), 1, "must not be changeable"),
        ("SEEN: dict = {}\n" + body("return 1"), 1, "must not be changeable"),
        ("def f(x, seen={}):\n    return x\n" + body("return 1"), 1, "default"),
        ("f = lambda x, seen=[]: x\n" + body("return 1"), 1, "default"),
        (body("labeling_function.x = 1", "return 1"), 2, "setting the attribute"),
        ("for x in (1, 2):\n    pass\n" + body("return 1"), 1, "outside of a function"),
        (body("return 1 +"), 2, "invalid syntax"),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_with_its_line(code: str, line: int, said: str) -> None:
    assert any(p.startswith(f"line {line}: ") and said in p for p in refused(code)), refused(code)


@pytest.mark.parametrize(
    ("code", "line", "construct", "instead"),
    [
        (body("return ().__class__.__base__.__subclasses__()"), 2, ".__subclasses__",
         "use the value itself"),
        (body("return '{0.x}'.format(row)"), 2, ".format", "write an f-string"),
        (body("f = '{0.x}'.format", "return f(row)"), 2, ".format", "write an f-string"),
        (body("g = (x for x in row)", "return g.gi_frame.f_back"), 3, ".gi_frame",
         "use the value itself"),
        (body("match row:", "    case object(__class__=c):", "        return c"), 2, "match",
         "write if and elif"),
        (body("try:", "    x = 1", "except KeyError as e:", "    return e.__traceback__.tb_frame"),
         5, ".tb_frame", "use the value itself"),
        (body("try:", "    x = 1", "except AttributeError as e:", "    return e.obj"), 5, ".obj",
         "str(error)"),
        (body("import os", "return 1"), 2, "os", "there are: datetime, math, re, statistics"),
        (body("import socket", "return 1"), 2, "socket", "there are: datetime, math"),
        (body("import ctypes", "return 1"), 2, "ctypes", "there are: datetime, math"),
        (body("return __import__('os')"), 2, "__import__", "write an import line"),
        (body("return open('x')"), 2, "open", "read the row's columns"),
        (body("return eval('1')"), 2, "eval", "write the expression itself"),
        (body("return statistics.sys"), 2, "sys", "there are: StatisticsError, correlation"),
        ("from statistics import sys\n" + body("return 1"), 1, "sys", "there are: Statistics"),
        ("import re as r\n" + body("return r.enum.sys"), 3, "enum", "there are: A, ASCII"),
        ("import math\n" + body("return 1"), 1, "math", "add it there"),
        (body("return math.pi"), 2, "math", "add it to allowed_imports"),
        (body("return type(row)"), 2, "type", "isinstance"),
        (body("print(row)", "return 1"), 2, "print", "a trial shows"),
        (body("return misspelt"), 2, "misspelt", "define it first"),
        ("class A:\n    pass\n" + body("return 1"), 1, "class", "use functions and tuples"),
        ("@f\n" + body("return 1"), 2, "decorator", "call the function instead"),
        ("async def f():\n    pass\n" + body("return 1"), 1, "async", "write a plain function"),
        (body("try:", "    return 1", "except* ValueError:", "    return 2"), 2, "except*",
         "write except"),
        (body("global x", "x = 1", "return x"), 2, "global", "depend on its row alone"),
        (body("x = 1", "def f():", "    nonlocal x", "return x"), 4, "nonlocal",
         "depend on its row alone"),
        ("def f():\n    yield 1\n" + body("return 1"), 2, "generator", "return a list"),
        (body("with row as r:", "    return 1"), 2, "with", "nothing to open"),
        (body("del row['a']", "return 1"), 2, "del", "let the name be"),
        (body("row.x = 1", "return 1"), 2, "attribute x", "keep the value under a name"),
        ("SEEN = []\n" + body("return 1"), 1, "outside of a function", "a tuple or a frozenset"),
        ("SEEN = {}\n" + body("return 1"), 1, "outside of a function", "a tuple or a frozenset"),
        ("SEEN = {1}\n" + body("return 1"), 1, "outside of a function", "a tuple or a frozenset"),
        ("SEEN = dict()\n" + body("return 1"), 1, "outside of a function", "inside the function"),
        ("def f(x, seen=[]):\n    return x\n" + body("return 1"), 1, "default",
         "use None or a tuple"),
        ("def f(x, *, seen={}):\n    return x\n" + body("return 1"), 1, "default", "use None"),
        ("f = lambda x, seen=[]: x\n" + body("return 1"), 1, "default", "use None or a tuple"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_line_and_the_construct_and_says_what_to_write_instead(
    code: str, line: int, construct: str, instead: str
) -> None:
    problems = refused(code, allowed_imports=("re", "statistics"))
    told = [problem.partition(": ") for problem in problems]
    assert [
        said for where, _, said in told
        if where == f"line {line}" and construct in said and instead in said
    ], problems  # fmt: skip
    assert all(where.startswith("line ") for where, _, _ in told), "each names its line"


@pytest.mark.parametrize(
    "code",
    [
        "from datetime import datetime\n" + body("return datetime.now().hour"),
        "import datetime as dt\n" + body("return dt.datetime(2024, 1, 1).hour"),
        body("re = row['a']", "return re.real"),
        body("return 1 if any(datetime.hour for datetime in row['days']) else 2"),
    ],
)
def test_a_name_that_only_sounds_like_a_module_is_let_be(code: str) -> None:
    judge(code, allowed_imports=("re", "datetime"), values={})


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1", "exactly once"),
        (body("return 1") + "\n" + body("return 2"), "exactly once"),
        ("def outer():\n    def labeling_function(row):\n        return 1", "exactly once"),
        ("def labeling_function(row, more):\n    return 1", "exactly one argument"),
        ("def labeling_function(*rows):\n    return 1", "exactly one argument"),
        ("def labeling_function():\n    return 1", "exactly one argument"),
        ("x = " + "(" * 300 + ")" * 300, "nested"),
        ("x = '" + "a" * 20_000 + "'", "characters"),
    ],
)
def test_the_code_as_a_whole_must_be_one_labeling_function(code: str, said: str) -> None:
    assert any(said in problem for problem in refused(code)), refused(code)


@pytest.mark.parametrize(
    ("assignment", "ids"),
    [
        ("STATIC = 2", (2, 1)),
        ("STATIC: int = 7", (7, 1)),
        ("STATIC, LAPTOP = 1, 5", (5, 2)),
        ("WORK_LAPTOP = 1", (1, 3)),
        ("ABSTAIN = 0", (0, -1)),
    ],
)
def test_a_constant_that_contradicts_the_concept_is_refused_with_both_ids(
    assignment: str, ids: tuple[int, int]
) -> None:
    (problem,) = refused(f"{assignment}\n{body('return -1')}")
    assert str(ids[0]) in problem
    assert f"id of {problem.split()[2]} is {ids[1]}" in problem


def test_every_problem_is_listed_not_only_the_first() -> None:
    problems = refused("import os\nX = []\n" + body("return ().__class__"))
    assert [p.partition(":")[0] for p in problems] == ["line 1", "line 2", "line 4"]


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        (["return 1 if row['a'] > row['b'] else -1"], {"a", "b"}),
        (["return 1 if row.get('a', 0) else -1"], {"a"}),
        (["return -1"], set()),
        (["name = 'a'", "return row[name]"], None),
        (["return helper(row)"], None),
        (["return max(row.values())"], None),
        (["row['b'] = 1", "return row['a']"], None),
        (["row = {'a': 1}", "return row['a']"], None),
    ],
)
def test_the_columns_that_the_code_reads_are_known_or_all(
    lines: list[str], columns: set[str] | None
) -> None:
    code = "def helper(r):\n    return 1\n" + body(*lines)
    assert judge(code, allowed_imports=(), values={}).columns == columns


def test_every_value_gets_a_python_name_of_its_own() -> None:
    values = {1: "STATIC", 2: "Work Laptop", 3: "3d-printer", 4: "work-laptop", 5: "Gerät",
              6: "!!!", 7: "abstain", 8: "None"}  # fmt: skip
    named = constants(values)
    assert sorted(named.values()) == list(values)
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in named)
    assert named["WORK_LAPTOP"] == 2
    assert "ABSTAIN" not in named


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
@example(["x_3", "X", "x"])
@example(["\u09f4", "\u2e2f", "\u03b0", "9", "_", "\u0345"])
def test_generated_code_can_be_saved_whatever_the_values_are_called(names: list[str]) -> None:
    values = dict(enumerate(names, start=1))
    code = template(values, list(values))
    judge(code, allowed_imports=(), values=values)
    scope: dict[str, object] = {}
    exec(code, scope)
    held = {name: value for name, value in scope.items() if isinstance(value, int)}
    assert sorted(held.values()) == [-1, *values], "one constant for each value, and ABSTAIN"
    contradicting = code.replace(f" = {len(names)}\n", f" = {len(names) + 1}\n")
    with pytest.raises(CodeRefused, match="contradicts the concept"):
        judge(contradicting, allowed_imports=(), values=values)


def test_generated_code_can_be_saved_as_it_is() -> None:
    values = {1: "STATIC", 2: "Work Laptop", 3: "3d-printer"}
    code = template(values, [1, 3])
    assert code.startswith("STATIC = 1\nVALUE_3D_PRINTER = 3\nABSTAIN = -1\n")
    assert judge(code, allowed_imports=(), values=values).columns == frozenset()
