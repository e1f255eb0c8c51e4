"""A function tried on some rows: what it votes, why it fails, and whether it votes alike twice."""

import pyarrow as pa
import pytest

from labeling.policy import judge
from labeling.sandbox.host import SandboxFailed
from labeling.trial import Trial, trial
from labeling.votes import Function
from tippers.errors import CannotBeDone

ROWS = pa.table({"mac": list("abcdef"), "n": [0, 1, 2, 3, 4, 5]})


def tried(*lines: str, before: str = "", judged: bool = True) -> Trial:
    code = before + "def labeling_function(row):\n" + "\n".join(f"    {line}" for line in lines)
    columns = judge(code, allowed_imports=(), values={}).columns if judged else None
    config = {"code": code, "allowed_imports": []}
    return trial(
        Function(7, "f", "custom", config, (1, 2), 1, columns), ROWS, key_column="mac", seed=1
    )


def test_it_gives_the_votes_and_their_counts_and_the_time_of_a_row() -> None:
    found = tried("return 1 if row['n'] > 3 else 2 if row['n'] == 0 else -1")
    assert found.votes == [2, -1, -1, -1, 1, 1]
    assert found.counts == {-1: 3, 1: 2, 2: 1}
    assert 0 < found.seconds_per_row < 1
    assert found.deterministic
    assert (found.fault_count, found.faults) == (0, [])


def test_every_row_that_fails_says_why_with_the_lines_of_the_code() -> None:
    found = tried(
        "return half(row['n'])", before="def half(n):\n    return 1 if 6 / (n - 2) > 0 else 9\n\n"
    )
    assert found.votes == [None, None, None, 1, 1, 1]
    assert found.fault_count == 3
    assert [(fault.row, fault.lines) for fault in found.faults] == [(0, []), (1, []), (2, [5, 2])]
    assert "returned 9, which is not in its applicable_cv_ids" in found.faults[0].said
    assert "ZeroDivisionError" in found.faults[2].said


def test_votes_that_depend_on_the_rows_before_are_found_out() -> None:
    found = tried(
        "seen.append(1)", "return 1 if len(seen) <= 3 else 2", before="seen = []\n", judged=False
    )
    assert not found.deterministic
    assert found.differing is not None
    assert found.differing.first == found.votes[found.differing.row]
    assert {found.differing.first, found.differing.second} == {1, 2}


def test_many_rows_are_sampled_alike_for_one_seed() -> None:
    rows = pa.table({"n": range(10_000)})
    function = Function(
        7, "f", "template", {"field": "n", "operator": "<", "value": 5_000, "label": 1}, (1,), 1
    )
    found = trial(function, rows, key_column="n", seed=3)
    numbers = found.rows.column("n").to_pylist()
    assert len(set(numbers)) == 2_000
    assert numbers == sorted(numbers)
    assert found.votes == [1 if number < 5_000 else -1 for number in numbers]
    assert trial(function, rows, key_column="n", seed=3).rows.equals(found.rows)


def test_a_row_that_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labeling.sandbox.host.CHUNK_SECONDS", 0.5)
    with pytest.raises(SandboxFailed, match="row with mac = e, alone: it was stopped"):
        tried("while row['n'] == 4:", "    pass", "return 1")


def test_code_that_does_not_load_is_an_error() -> None:
    with pytest.raises(SandboxFailed, match="does not load"):
        tried("return 1", before="1 / 0\n", judged=False)


def test_a_trial_that_is_slow_in_all_ends_though_no_chunk_was_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("labeling.trial.MOST_SECONDS", 0.0)
    with pytest.raises(CannotBeDone, match="longer than 0 s in all"):
        tried("return 1")
