"""The label matrix: what every labeling function votes on every entity of an index.

Rows are the index's distinct keys, ascending; a column holds one function's votes on its own rule's
rows, as concept value ids. An entity that the rule lacks abstains, and so does a row that faults.
Template and regex functions are whole-column expressions; custom code votes in the sandbox.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labeling.sandbox.child import unpack
from labeling.sandbox.columns import Packed, pack
from labeling.sandbox.host import FAULT, Sandbox, SandboxFailed
from labeling.watch import Watch
from tippers.cores import cores
from tippers.errors import CannotBeDone

ABSTAIN = -1
CHUNK_ROWS = 10_000
CHUNK_BYTES = 16 << 20  # at most, as Arrow counts them
ALONE_SECONDS = 1.0  # for a row when a slow one is searched for
SEARCH_SECONDS = 5.0
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
    members = {rule_id: members_of(keys, rule) for rule_id, rule in rules.items()}
    matrix = np.full((len(keys), len(functions)), ABSTAIN, dtype=np.int32)
    work = _Work(
        watch, functions=len(functions), votes=sum(len(members[f.rule_id][1]) for f in functions)
    )

    def cast(number: int) -> Cast:
        function = functions[number]
        rows, positions = members[function.rule_id]
        with work.on(function):
            votes, first_fault = _votes(function, rows, rules[function.rule_id].key_column, work)
        faulty = votes == FAULT
        faults = int(faulty.sum())
        if faults > MOST_FAULTS * len(votes):
            raise CannotBeDone(
                f"{function.name} failed on {faults} of {len(votes)} rows. The first: {first_fault}"
            )
        matrix[positions, number] = np.where(faulty, ABSTAIN, votes)
        return Cast(function.lf_id, function.name, len(votes), faults, first_fault)

    # One thread and one sandbox more than there are cores: while a sandbox waits for its next rows,
    # the others have work.
    with ThreadPoolExecutor(cores() + 1) as pool:
        waiting = [pool.submit(cast, number) for number in range(len(functions))]
        try:
            wait(waiting, return_when=FIRST_EXCEPTION)
            for future in waiting:
                if future.done():
                    future.result()  # raises what made the wait end
        except BaseException:
            work.give_up()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return LabelMatrix(keys, matrix, [future.result() for future in waiting])


class _Work:
    """What the functions of one matrix share: their progress, and the end of all when one fails."""

    def __init__(self, watch: Watch, *, functions: int, votes: int) -> None:
        self._watch = watch
        self._functions = functions
        self._votes = votes
        self._lock = threading.Lock()
        self._now: list[str] = []
        self._finished = 0
        self._voted = 0
        self._given_up = False

    def give_up(self) -> None:
        """The others' next chunk is their last."""
        self._given_up = True

    @contextmanager
    def on(self, function: Function) -> Iterator[None]:
        """While this function votes; whatever it cannot do is told with its name."""
        with self._lock:
            self._now.append(function.name)
        self.voted(0)
        try:
            yield
        except CannotBeDone as error:
            self._watch.check()  # a cancelled run kills its sandbox: that is not the function's fault
            raise CannotBeDone(f"{function.name}: {error.detail}") from error
        with self._lock:
            self._now.remove(function.name)
            self._finished += 1

    def voted(self, votes: int) -> None:
        """So many votes more; raises when the work is to stop."""
        if self._given_up:
            raise CannotBeDone("another function failed")
        with self._lock:
            self._voted += votes
            message = f"now {', '.join(self._now)}"
            if self._voted:
                message += f": {self._voted / self._votes:.0%} of all votes"
        self._watch.progress(self._finished, self._functions, "labeling functions", message)

    def on_stop(self, stop: Callable[[], None]) -> AbstractContextManager[None]:
        """As a run's."""
        return self._watch.on_stop(stop)


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
    counts = np.bincount(at, minlength=1)
    if counts.max() > 1:
        twice = keys[int(counts.argmax())]
        raise CannotBeDone(
            f"The rule {rule.name} has {counts.max()} rows for {rule.key_column} = {twice}; "
            "a rule gives one row for each entity (GROUP BY)."
        )
    if len(at) == len(named):  # the usual case: no copy
        return rule.table, at
    return rule.table.filter(inside), at


def vote_without_code(function: Function, rows: pa.Table) -> Votes:
    """A template or regex function's votes on its rule's rows."""
    mask = {"template": template_mask, "regex": regex_mask}[function.lf_type]
    hit = mask(rows, function.config).fill_null(False).to_numpy()
    return np.where(hit, np.int32(function.config["label"]), np.int32(ABSTAIN))


def _votes(function: Function, rows: pa.Table, key_column: str, work: _Work) -> tuple[Votes, str]:
    if function.lf_type != "custom":
        votes = vote_without_code(function, rows)
        work.voted(len(votes))
        return votes, ""
    voting = Voting(function, rows, key_column)
    with work.on_stop(voting.kill), voting:
        parts = []
        for start in range(0, rows.num_rows, voting.rows_at_a_time):
            parts.append(voting.votes(rows.slice(start, voting.rows_at_a_time)))
            work.voted(len(parts[-1]))
    return (np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)), voting.first_fault


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

    `rows` are all that it will vote on, `key_column` is how one of them is named, `first_fault`
    what the first row that failed said.
    """

    def __init__(self, function: Function, rows: pa.Table, key_column: str) -> None:
        read = function.columns
        self._columns = [name for name in rows.column_names if read is None or name in read]
        self._function = function
        self._key_column = key_column
        self._rows = rows.num_rows
        self._killed = False
        self._sandbox = self._new_sandbox()
        self.first_fault = ""
        row_bytes = rows.select(self._columns).nbytes // max(rows.num_rows, 1) + 1
        self.rows_at_a_time = max(1, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes))

    def _new_sandbox(self) -> Sandbox:
        config = self._function.config
        return Sandbox(
            config["code"],
            columns=self._columns,
            allowed_imports=config.get("allowed_imports", ()),
            rows=self._rows,
        )

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
        self._killed = True
        self._sandbox.kill()

    def votes(self, rows: pa.Table) -> Votes:
        """One chunk's votes, FAULT for a row that failed.

        SandboxFailed if it is late or dies; it says which row's doing that is.
        """
        packed = [_packed(rows, name) for name in self._columns]
        try:
            chunk = self._sandbox.votes(packed, rows.num_rows)
        except SandboxFailed as error:
            if self._killed:
                raise
            raise SandboxFailed(f"{error.detail}. {self._search(rows, packed)}") from error
        votes = chunk.votes.copy()
        known = (votes == ABSTAIN) | (votes == FAULT)
        for cv_id in self._function.cv_ids:
            known |= votes == cv_id
        if not self.first_fault and chunk.first_fault:
            self.first_fault = f"{chunk.first_fault} ({self._named(rows, chunk.first_fault_row)})"
        if not known.all():
            row = int(known.argmin())
            self.first_fault = self.first_fault or (
                f"it returned {votes[row]}, which is not in its applicable_cv_ids "
                f"({self._named(rows, row)})"
            )
            votes[~known] = FAULT
        return votes

    def _named(self, rows: pa.Table, row: int) -> str:
        return f"{self._key_column} = {rows.column(self._key_column)[row]}"

    def _search(self, rows: pa.Table, packed: list[Packed]) -> str:
        """Which row is slow or deadly, in a sentence: each alone, in a new process."""
        self._sandbox.__exit__(None, None, None)
        self._sandbox = self._new_sandbox()
        if self._killed:  # before the new one was there to be killed
            self._sandbox.kill()
        self._sandbox.__enter__()
        columns = [unpack(column) for column in packed]
        begun = time.monotonic()
        slowest, slow_row, row = 0.0, 0, 0
        for row in range(rows.num_rows):
            started = time.monotonic()
            try:
                self._sandbox.votes([[values[row]] for values in columns], 1, ALONE_SECONDS)
            except SandboxFailed as error:
                return f"The row with {self._named(rows, row)}, alone: {error.detail}"
            ended = time.monotonic()
            if ended - started > slowest:
                slowest, slow_row = ended - started, row
            if ended - begun > SEARCH_SECONDS:
                break
        return (
            f"Of {row + 1} rows alone, none took longer than {slowest:.2g} s "
            f"({self._named(rows, slow_row)})"
        )


def _packed(rows: pa.Table, name: str) -> Packed:
    try:
        return pack(rows.column(name))
    except CannotBeDone as error:
        raise CannotBeDone(f"the column {name}: {error.detail}") from error
