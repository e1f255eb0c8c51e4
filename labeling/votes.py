"""The label matrix: what every labeling function votes on every entity of an index.

Rows are the index's distinct keys, ascending; a column holds one function's votes on its own rule's
rows, as concept value ids. An entity that the rule lacks abstains, and so does a row that faults.
Template and regex functions are whole-column expressions; custom code votes in the sandbox.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labeling.sandbox.columns import pack
from labeling.sandbox.host import FAULT, Sandbox, SandboxFailed
from labeling.watch import Watch
from tippers.errors import CannotBeDone

ABSTAIN = -1
CHUNK_ROWS = 10_000
MOST_FAULTS = (
    0.5  # of a function's rows; above that its votes say more about its bug than about them
)

Votes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Function:
    """A labeling function as far as voting is concerned. `config` is its lf_config.

    `columns`: what custom code reads from its row (policy.Judgement); None for all.
    """

    lf_id: int
    name: str
    lf_type: str
    config: Mapping[str, Any]
    cv_ids: Sequence[int]
    rule_id: int
    columns: frozenset[str] | None = None


@dataclass(frozen=True)
class RuleTable:
    """A rule's current product and the column that names the entity."""

    name: str
    table: pa.Table
    key_column: str


@dataclass(frozen=True)
class Cast:
    """What one function did: `rows` it saw, of which `faults` failed; the first failure in words."""

    lf_id: int
    name: str
    rows: int
    faults: int
    first_fault: str


@dataclass(frozen=True)
class LabelMatrix:
    """`votes[i, j]`: the cv_id that `casts[j]` votes for `keys[i]`, or -1."""

    keys: pa.Array
    votes: Votes
    casts: list[Cast]


def distinct_keys(index: pa.Table, key_column: str) -> pa.Array:
    """The index's entities: distinct, without nulls, ascending."""
    keys = pc.unique(index.column(key_column)).drop_null()
    return keys.take(pc.sort_indices(keys))


def label_matrix(
    keys: pa.Array, functions: Sequence[Function], rules: Mapping[int, RuleTable], watch: Watch
) -> LabelMatrix:
    """Cast every vote. CannotBeDone names the function that cannot vote, or the rule that is unfit."""
    matrix = np.full((len(keys), len(functions)), ABSTAIN, dtype=np.int32)
    members = {rule_id: members_of(keys, rule) for rule_id, rule in rules.items()}
    casts: list[Cast] = []
    for number, function in enumerate(functions):
        watch.progress(number, len(functions), "labeling functions", f"now {function.name}")
        rows, positions = members[function.rule_id]
        try:
            votes, first_fault = _votes(function, rows, watch)
        except CannotBeDone as error:
            watch.check()  # a cancelled run kills its sandbox: that is not the function's fault
            raise CannotBeDone(f"{function.name}: {error.detail}") from error
        faulty = votes == FAULT
        cast = Cast(function.lf_id, function.name, len(votes), int(faulty.sum()), first_fault)
        if cast.rows and cast.faults > MOST_FAULTS * cast.rows:
            raise CannotBeDone(
                f"{function.name} failed on {cast.faults} of {cast.rows} rows. "
                f"The first: {cast.first_fault}"
            )
        matrix[positions, number] = np.where(faulty, ABSTAIN, votes)
        casts.append(cast)
    return LabelMatrix(keys, matrix, casts)


def members_of(keys: pa.Array, rule: RuleTable) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The rule's rows whose entity is in the index, and their positions in `keys`."""
    if rule.key_column not in rule.table.column_names:
        raise CannotBeDone(
            f"The rule {rule.name} has no column {rule.key_column}; it has: "
            f"{', '.join(rule.table.column_names)}."
        )
    named = rule.table.column(rule.key_column)
    try:
        positions = pc.index_in(named.cast(keys.type), value_set=keys)
    except pa.ArrowInvalid as error:
        raise CannotBeDone(
            f"{rule.key_column} of the rule {rule.name} is {named.type}, "
            f"which cannot be compared with the index's {keys.type}."
        ) from error
    inside = positions.is_valid()
    at = positions.drop_null().to_numpy().astype(np.int64)
    found, counts = np.unique(at, return_counts=True)
    if len(found) and counts.max() > 1:
        twice = keys[int(found[int(counts.argmax())])]
        raise CannotBeDone(
            f"The rule {rule.name} has {counts.max()} rows for {rule.key_column} = {twice}; "
            "a rule gives one row for each entity (GROUP BY)."
        )
    return rule.table.filter(inside), at


def vote_without_code(function: Function, rows: pa.Table) -> Votes:
    """A template or regex function's votes on its rule's rows."""
    mask = {"template": template_mask, "regex": regex_mask}[function.lf_type]
    hit = mask(rows, function.config).fill_null(False).to_numpy()
    return np.where(hit, np.int32(function.config["label"]), np.int32(ABSTAIN))


def _votes(function: Function, rows: pa.Table, watch: Watch) -> tuple[Votes, str]:
    if function.lf_type == "custom":
        return _custom(function, rows, watch)
    return vote_without_code(function, rows), ""


# --- template and regex ---------------------------------------------------------------------


def template_mask(rows: pa.Table, config: Mapping[str, Any]) -> pa.ChunkedArray:
    """Which rows satisfy `field operator value`; null where the field is null."""
    column = _field(rows, config["field"])
    operator, value = config["operator"], config["value"]
    try:
        if operator == "in":
            found = pc.is_in(column, value_set=pa.array(value).cast(column.type))
            return pc.if_else(column.is_valid(), found, None)
        if operator == "contains":
            return pc.match_substring(column.cast(pa.large_string()), str(value))
        compare = {
            ">": pc.greater, ">=": pc.greater_equal, "<": pc.less, "<=": pc.less_equal,
            "==": pc.equal, "!=": pc.not_equal,
        }[operator]  # fmt: skip
        return compare(column, _scalar(value, column.type))
    except (pa.ArrowException, OverflowError) as error:
        raise CannotBeDone(
            f"the column {config['field']} is {column.type}, "
            f"which cannot be compared as {operator} {value!r}"
        ) from error


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    """A JSON value to compare a column with: texts are read as the column's type.

    A number stays what it is: 2.5 beside a column of whole numbers compares as 2.5.
    """
    if isinstance(value, str) and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return pa.scalar(value).cast(kind)
    return pa.scalar(value)


def regex_mask(rows: pa.Table, config: Mapping[str, Any]) -> pa.ChunkedArray:
    """Which rows have the pattern (RE2) anywhere in the field's text; null where it is null."""
    column = _field(rows, config["field"])
    try:
        return pc.match_substring_regex(column.cast(pa.large_string()), config["pattern"])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CannotBeDone(f"the pattern cannot be searched for: {error}") from error


def regex_problem(pattern: str) -> str | None:
    """What is wrong with a pattern, in RE2's words; None if it can be used."""
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return str(error)
    return None


def _field(rows: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in rows.column_names:
        raise CannotBeDone(
            f"its rule has no column {name}; there are: {', '.join(rows.column_names)}"
        )
    return rows.column(name)


# --- custom code ----------------------------------------------------------------------------


class Voting:
    """A custom function at work in its sandbox, as a context; SandboxFailed if it does not load.

    `first_fault`: what the first row that failed said.
    """

    def __init__(self, function: Function, rows: pa.Table) -> None:
        read = function.columns
        self._columns = [name for name in rows.column_names if read is None or name in read]
        self._allowed = np.array([ABSTAIN, *function.cv_ids], dtype=np.int32)
        self._sandbox = Sandbox(
            function.config["code"],
            columns=self._columns,
            allowed_imports=function.config.get("allowed_imports", ()),
            rows=rows.num_rows,
        )
        self.first_fault = ""

    def __enter__(self) -> Self:
        self._sandbox.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sandbox.__exit__(kind, error, trace)

    def kill(self) -> None:
        """End it; from any thread, at any time."""
        self._sandbox.kill()

    def votes(self, rows: pa.Table) -> Votes:
        """One chunk's votes, FAULT for a row that failed. SandboxFailed if it is late or dies."""
        columns = [pack(rows.column(name)) for name in self._columns]
        chunk = self._sandbox.votes(columns, rows.num_rows)
        votes = chunk.votes.copy()
        stray = ~np.isin(votes, self._allowed) & (votes != FAULT)
        if stray.any() and not self.first_fault and not chunk.first_fault:
            said = int(votes[int(stray.argmax())])
            self.first_fault = f"it returned {said}, which is not in its applicable_cv_ids"
        votes[stray] = FAULT
        self.first_fault = self.first_fault or chunk.first_fault
        return votes


def _custom(function: Function, rows: pa.Table, watch: Watch) -> tuple[Votes, str]:
    parts: list[Votes] = []
    voting = Voting(function, rows)
    with watch.on_stop(voting.kill), voting:
        for start in range(0, rows.num_rows, CHUNK_ROWS):
            part = rows.slice(start, CHUNK_ROWS)
            try:
                parts.append(voting.votes(part))
            except SandboxFailed as error:
                raise SandboxFailed(
                    f"{error.detail} (rows {start + 1} to {start + part.num_rows})"
                ) from error
            watch.check()
    return (np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)), voting.first_fault
