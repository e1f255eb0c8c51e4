"""The label matrix: who votes on which row, on hand-made tables."""

import pickle
import threading
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from labeling.policy import judge
from labeling.sandbox.child import unpack
from labeling.sandbox.columns import pack
from labeling.votes import (
    Function,
    LabelMatrix,
    RuleTable,
    distinct_keys,
    label_matrix,
    regex_mask,
    regex_problem,
    template_mask,
)
from tests.labeling.watching import Stop, Watching
from tippers.errors import CannotBeDone


def custom(code: str, *, cv_ids: tuple[int, ...] = (1, 2), rule_id: int = 1) -> Function:
    columns = judge(code, allowed_imports=(), values={}).columns
    config = {"code": code, "allowed_imports": []}
    return Function(7, "by_code", "custom", config, cv_ids, rule_id, columns)


def body(*lines: str) -> str:
    return "def labeling_function(row):\n" + "\n".join(f"    {line}" for line in lines)


def matrix(keys: list[Any], functions: list[Function], *rules: dict[str, list[Any]]) -> LabelMatrix:
    tables = {
        number: RuleTable(f"rule{number}", pa.table(rule), next(iter(rule)))
        for number, rule in enumerate(rules, start=1)
    }
    return label_matrix(pa.array(keys), functions, tables, Watching())


def test_rows_are_the_distinct_keys_ascending_without_nulls() -> None:
    index = pa.table({"mac": ["c", "a", None, "c", "b"], "n": [1, 2, 3, 4, 5]})
    assert distinct_keys(index, "mac").to_pylist() == ["a", "b", "c"]


def test_each_function_votes_on_its_own_rule_and_what_a_rule_lacks_abstains() -> None:
    many = custom(body("return 1 if row['stays'] > 5 else 2"), rule_id=1)
    night = Function(
        8, "night", "template", {"field": "night", "operator": "==", "value": True, "label": 1},
        (1,), 2,
    )  # fmt: skip
    votes = matrix(
        ["a", "b", "c"],
        [many, night],
        {"mac": ["c", "b", "other"], "stays": [9, 1, 100]},
        {"mac": ["a", "c"], "night": [True, False]},
    ).votes
    assert votes.tolist() == [[-1, 1], [2, -1], [1, -1]]


def test_only_members_of_the_index_are_voted_on() -> None:
    fails = custom(body("return 1 if 1 / row['n'] else 2"))
    cast = matrix(["a"], [fails], {"mac": ["a", "x", "y"], "n": [1, 0, 0]}).casts[0]
    assert (cast.rows, cast.faults) == (1, 0)


def test_keys_of_another_width_still_meet() -> None:
    rules = {1: RuleTable("r", pa.table({"id": pa.array([2, 1], pa.int32())}), "id")}
    found = label_matrix(pa.array([1, 2, 3]), [custom(body("return 1"))], rules, Watching())
    assert found.votes[:, 0].tolist() == [1, 1, -1]


def test_keys_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(CannotBeDone, match="mac of the rule rule1 is string"):
        matrix([1, 2], [custom(body("return 1"))], {"mac": ["a", "b"]})


def test_two_rows_for_one_entity_are_refused_by_rule_and_key() -> None:
    with pytest.raises(CannotBeDone, match=r"rule1 has 2 rows for mac = b"):
        matrix(["a", "b"], [custom(body("return 1"))], {"mac": ["b", "a", "b"]})


def test_faults_abstain_are_counted_and_the_first_is_told() -> None:
    code = body("if row['n'] == 0:", "    return 9", "return 1 if 6 / (row['n'] - 3) > 0 else 2")
    found = matrix(["a", "b", "c", "d", "e"], [custom(code)],
                   {"mac": ["a", "b", "c", "d", "e"], "n": [5, 0, 3, 1, 4]})  # fmt: skip
    assert found.votes[:, 0].tolist() == [1, -1, -1, 2, 1]
    assert (found.casts[0].rows, found.casts[0].faults) == (5, 2)
    assert found.casts[0].first_fault.endswith("ZeroDivisionError: division by zero (mac = c)")


def test_a_vote_outside_the_applicable_values_is_a_fault() -> None:
    found = matrix(["a", "b", "c"], [custom(body("return row['n']"))],
                   {"mac": ["a", "b", "c"], "n": [1, 3, -1]})  # fmt: skip
    assert found.votes[:, 0].tolist() == [1, -1, -1]
    assert found.casts[0].faults == 1
    assert found.casts[0].first_fault == (
        "it returned 3, which is not in its applicable_cv_ids (mac = b)"
    )


def test_a_function_that_fails_on_more_than_half_of_its_rows_fails_the_job_by_name() -> None:
    with pytest.raises(CannotBeDone, match=r"by_code failed on 2 of 3 rows(.|\n)*KeyError: 'gone'"):
        matrix(["a", "b", "c"], [custom(body("return 1 if row['n'] else row['gone']"))],
               {"mac": ["a", "b", "c"], "n": [1, 0, 0]})  # fmt: skip


def test_code_that_does_not_load_fails_the_job_by_name() -> None:
    function = Function(1, "broken", "custom", {"code": "1 / 0"}, (1,), 1)
    with pytest.raises(CannotBeDone, match="broken: its code does not load"):
        matrix(["a"], [function], {"mac": ["a"]})


def test_votes_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"mac": list(range(50)), "n": [n % 7 for n in range(50)]}
    code = custom(body("return 1 if row['n'] in (1, 2) else 2 if row['n'] > 4 else -1"))
    whole = matrix(list(range(50)), [code], rule).votes
    monkeypatch.setattr("labeling.votes.CHUNK_ROWS", 7)
    assert (matrix(list(range(50)), [code], rule).votes == whole).all()


def test_a_chunk_that_is_late_names_the_row_whose_doing_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labeling.sandbox.host.CHUNK_SECONDS", 0.5)
    code = custom(body("while row['n'] == 3:", "    pass", "return 1"))
    with pytest.raises(CannotBeDone, match=r"by_code: (.|\n)*row with mac = d, alone: it was stop"):
        matrix(list("abcde"), [code], {"mac": list("abcde"), "n": [1, 2, 0, 3, 4]})


def test_a_chunk_that_is_late_without_any_slow_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labeling.sandbox.host.CHUNK_SECONDS", 0.5)
    monkeypatch.setattr("labeling.votes.SEARCH_SECONDS", 0.2)
    code = custom(body("for _ in range(200000):", "    pass", "return 1"))
    with pytest.raises(CannotBeDone, match=r"rows alone, none took longer than .* \(mac = \d+\)"):
        matrix(list(range(400)), [code], {"mac": list(range(400))})


def test_a_function_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labeling.votes.CHUNK_ROWS", 1)
    watching = Watching()
    rules = {1: RuleTable("r", pa.table({"mac": range(5_000)}), "mac")}
    slow = custom(body("for _ in range(100000):", "    pass", "return 1"))
    broken = Function(1, "broken", "custom", {"code": "1 / 0"}, (1,), 1)
    with pytest.raises(CannotBeDone, match="broken: its code does not load"):
        label_matrix(pa.array(range(5_000)), [slow, broken], rules, watching)
    assert len(watching.said) < 5_000


def test_large_values_cross_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labeling.votes.CHUNK_BYTES", 1 << 20)
    watching = Watching()
    rules = {1: RuleTable("r", pa.table({"mac": range(8), "t": ["x" * (1 << 19)] * 8}), "mac")}
    code = custom(body("return 1 if len(row['t']) > 9 else 2"))
    found = label_matrix(pa.array(range(8)), [code], rules, watching)
    assert found.votes[:, 0].tolist() == [1] * 8
    assert len(watching.said) >= 5


def test_a_stopped_run_ends_its_sandboxes_at_once() -> None:
    watching = Watching()
    rules = {1: RuleTable("r", pa.table({"mac": ["a"]}), "mac")}
    endless = custom(body("while True:", "    pass"))
    threading.Timer(0.3, watching.stop).start()
    started = time.monotonic()
    with pytest.raises(Stop):
        label_matrix(pa.array(["a"]), [endless] * 3, rules, watching)
    assert time.monotonic() - started < 3


def test_progress_names_the_function_at_work() -> None:
    watching = Watching()
    rules = {1: RuleTable("r", pa.table({"mac": ["a"]}), "mac")}
    label_matrix(pa.array(["a"]), [custom(body("return 1"))], rules, watching)
    assert watching.said == [
        (0, 1, "labeling functions", "now by_code"),
        (0, 1, "labeling functions", "now by_code: 100% of all votes"),
    ]


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (">", 2, [False, False, True, None]),
        (">=", 2, [False, True, True, None]),
        ("<", 2.5, [True, True, False, None]),
        ("<=", 1, [True, False, False, None]),
        ("==", 2, [False, True, False, None]),
        ("!=", 2, [True, False, True, None]),
        ("in", [1, 3], [True, False, True, None]),
    ],
)
def test_template_operators_on_numbers(
    operator: str, value: Any, expected: list[bool | None]
) -> None:
    rows = pa.table({"n": [1, 2, 3, None]})
    config = {"field": "n", "operator": operator, "value": value}
    assert template_mask(rows, config).to_pylist() == expected


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("==", "ab", [True, False, None]),
        ("contains", "b", [True, True, None]),
        ("in", ["b.c", "x"], [False, True, None]),
        ("<", "b", [True, False, None]),
    ],
)
def test_template_operators_on_texts(
    operator: str, value: Any, expected: list[bool | None]
) -> None:
    rows = pa.table({"t": ["ab", "b.c", None]})
    config = {"field": "t", "operator": operator, "value": value}
    assert template_mask(rows, config).to_pylist() == expected


def test_a_time_is_compared_with_a_text_that_says_one() -> None:
    rows = pa.table({"t": [datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)]})
    config = {"field": "t", "operator": ">=", "value": "2024-06-01T00:00:00Z"}
    assert template_mask(rows, config).to_pylist() == [False, True]


def test_what_cannot_be_compared_names_the_column_and_its_type() -> None:
    config = {"field": "n", "operator": ">", "value": "many"}
    with pytest.raises(CannotBeDone, match="the column n is int64"):
        template_mask(pa.table({"n": [1]}), config)
    with pytest.raises(CannotBeDone, match="no column m; there are: n"):
        template_mask(pa.table({"n": [1]}), {**config, "field": "m"})


def test_a_regex_is_searched_for_anywhere_in_the_text() -> None:
    rows = pa.table({"t": ["AP-12", "ap-x", None]})
    found = regex_mask(rows, {"field": "t", "pattern": r"(?i)ap-\d"})
    assert found.to_pylist() == [True, False, None]


@pytest.mark.parametrize("pattern", [r"(?=a)", r"(?<!a)b", r"(a)\1", "(", "[z-a]"])
def test_patterns_that_re2_lacks_are_told(pattern: str) -> None:
    assert regex_problem(pattern)


@pytest.mark.parametrize("pattern", ["a+", r"\d{3}", r"\(?=x", "(?i)x|y", "(?P<n>a)"])
def test_patterns_that_re2_has_are_fine(pattern: str) -> None:
    assert regex_problem(pattern) is None


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 3]), [1, None, 3]),
        (pa.array([2**62 + 1, None]), [2**62 + 1, None]),
        (pa.array([1.5, None]), [1.5, None]),
        (pa.array([True, None, False]), [True, None, False]),
        (pa.array(["a", None]), ["a", None]),
        (pa.array(["", "é", None, "a\nb"], pa.large_string()), ["", "é", None, "a\nb"]),
        (pa.array(["a\0b", None, ""]), ["a\0b", None, ""]),
        (pa.array([None, None], pa.string()), [None, None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([1, None], pa.uint8()), [1, None]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([0.5, None], pa.float32()), [0.5, None]),
        (pa.array([], pa.int64()), []),
        (
            pa.array([-1, None, 253402300799999999, -62135596800000000], pa.timestamp("us")),
            [datetime(1969, 12, 31, 23, 59, 59, 999999), None, datetime.max, datetime.min],  # noqa: DTZ001, DTZ901 - without a zone
        ),
        (pa.array([Decimal("1.50"), None]), [1.5, None]),
        (pa.array([date(2024, 1, 2), None]), [date(2024, 1, 2), None]),
        (pa.array([[1, 2], None]), [[1, 2], None]),
        (
            pa.array([datetime(2024, 1, 2, 3, tzinfo=UTC), None]),
            [datetime(2024, 1, 2, 3, tzinfo=UTC), None],
        ),
        (
            pa.array([datetime(2024, 1, 2, 3), None], pa.timestamp("ns")),  # noqa: DTZ001 - without a zone
            [datetime(2024, 1, 2, 3), None],  # noqa: DTZ001 - without a zone
        ),
    ],
)
def test_values_cross_as_plain_python(column: pa.Array, expected: list[Any]) -> None:
    values = unpack(pickle.loads(pickle.dumps(pack(pa.chunked_array([column])))))
    assert values == expected
    assert [type(v) for v in values] == [type(v) for v in expected]


def test_times_that_python_cannot_hold_are_refused_by_column() -> None:
    times = pa.array([0, 2**62], pa.timestamp("us"))
    rules = {1: RuleTable("r", pa.table({"mac": ["a", "b"], "t": times}), "mac")}
    code = custom(body("return 1 if row['t'] else 2"))
    with pytest.raises(CannotBeDone, match="by_code: the column t: a time lies outside"):
        label_matrix(pa.array(["a", "b"]), [code], rules, Watching())
