"""What is known of the entities, from tables as rules leave them."""

import pyarrow as pa
import pytest

from labeling.truth import known_values
from labeling.votes import RuleTable
from tippers.errors import CannotBeDone

KEYS = pa.array(["a", "b", "c", "d"])
NAMES = {5: "STATIC", 9: "PHONE"}


def known(*, macs: list[str], said: pa.Array) -> list[int]:
    table = RuleTable("checked", pa.table({"mac": macs, "kind": said}), "mac")
    values: list[int] = known_values(KEYS, table, "kind", NAMES).tolist()
    return values


@pytest.mark.parametrize(
    "said",
    [
        pa.array([9, 5, None, 9], pa.int32()),
        pa.array([9, 5, None, 9], pa.int64()),
        pa.array(["PHONE", "STATIC", None, "PHONE"]),
        pa.array(["PHONE", "STATIC", None, "PHONE"], pa.large_string()),
    ],
)
def test_ids_and_names_say_the_same(said: pa.Array) -> None:
    assert known(macs=["d", "a", "b", "elsewhere"], said=said) == [5, -1, -1, 9]


def test_a_rule_without_rows_knows_nothing() -> None:
    assert known(macs=[], said=pa.array([], pa.string())) == [-1] * 4


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (pa.array([5, 7, 8, None]), r"says 7, 8, which .* there are: STATIC \(5\), PHONE \(9\)"),
        (pa.array([-1, 5, 5, 5]), "says -1, which"),
        (pa.array(["STATIC", "phone", "PHONE", None]), "says phone, which"),
        (pa.array([5.0, 9.0, 9.0, 9.0]), "kind of the rule checked is double"),
        (pa.array([True, False, True, None]), "is bool"),
    ],
)
def test_what_no_value_is_called_is_refused_by_name(said: pa.Array, sentence: str) -> None:
    with pytest.raises(CannotBeDone, match=sentence) as refused:
        known(macs=["a", "b", "c", "d"], said=said)
    assert refused.value.field == "truth_rule_id"


def test_of_many_unknown_values_the_first_are_named() -> None:
    said = pa.array([f"x{number}" for number in range(8)])
    with pytest.raises(CannotBeDone, match="says x0, x1, x2, x3, x4 and 3 more, which"):
        known(macs=[f"m{number}" for number in range(8)], said=said)


def test_an_entity_has_one_truth() -> None:
    with pytest.raises(CannotBeDone, match="2 rows for mac = a"):
        known(macs=["a", "a"], said=pa.array([5, 9]))
