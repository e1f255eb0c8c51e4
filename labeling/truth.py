"""What is known of the entities of an index, from a rule's table. Tables in, an array out."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labeling.votes import ABSTAIN, RuleTable, members_of
from tippers.errors import CannotBeDone

MOST_NAMED = 5  # of what is unknown, in the sentence that refuses it


def known_values(
    keys: pa.Array, rule: RuleTable, column: str, names: Mapping[int, str]
) -> npt.NDArray[np.int64]:
    """A cv_id for each of `keys`; -1 where the rule lacks the entity or its `column` is null.

    The column holds ids of concept values or their names; `names` are those there are, by id.
    CannotBeDone names what is neither, whatever entity it is said of.
    """
    said = rule.table.column(column)
    if pa.types.is_integer(said.type):
        known = pa.array(list(names), pa.int64())
        unknown = pc.unique(said).drop_null().cast(pa.int64())
    elif pa.types.is_string(said.type) or pa.types.is_large_string(said.type):
        known = pa.array(list(names.values()), said.type)
        unknown = pc.unique(said).drop_null()
    else:
        raise CannotBeDone(
            f"{column} of the rule {rule.name} is {said.type}; the truth is told by ids (whole "
            "numbers) or names (text) of concept values.",
            field="truth_rule_id",
        )
    unknown = unknown.filter(pc.invert(pc.is_in(unknown, value_set=known)))
    if len(unknown):
        shown = ", ".join(str(value) for value in unknown[:MOST_NAMED].to_pylist())
        more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
        there = ", ".join(f"{name} ({cv_id})" for cv_id, name in names.items())
        raise CannotBeDone(
            f"{column} of the rule {rule.name} says {shown}{more}, which no concept value is "
            f"called; there are: {there}.",
            field="truth_rule_id",
        )
    rows, positions = members_of(keys, rule)
    at = pc.index_in(rows.column(column).cast(known.type), value_set=known).fill_null(len(names))
    values = np.full(len(keys), ABSTAIN, dtype=np.int64)
    values[positions] = np.array([*names, ABSTAIN], dtype=np.int64)[at.to_numpy()]
    return values
