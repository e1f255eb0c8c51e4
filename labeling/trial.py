"""A labeling function tried on some rows before anybody depends on it.

It votes on the rows twice, in two fresh processes, the second time shuffled and cut otherwise: a
function whose votes depend on anything but the row gives itself away.
"""

import re
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from labeling.sandbox.host import FAULT
from labeling.votes import ABSTAIN, Function, Votes, Voting, vote_without_code
from tippers.errors import CannotBeDone

MOST_ROWS = 2_000
SHOWN_FAULTS = 20
PIECES = 7  # of the second time
MOST_SECONDS = 20.0  # somebody waits for the answer; one chunk may yet overrun it by its own limit


@dataclass(frozen=True)
class RowFault:
    """Why a row has no vote. `lines`: of the code, outermost first; none for a stray vote."""

    row: int
    lines: list[int]
    said: str


@dataclass(frozen=True)
class Differing:
    """A row that got two votes; None stands for a fault."""

    row: int
    first: int | None
    second: int | None


@dataclass(frozen=True)
class Trial:
    """What a function did. Every `row` is a position in `rows`, as is that in `votes`.

    `votes`: a cv_id, -1 for abstaining, None where the row failed. `counts`: rows for each of
    them, -1 included, faults left out. `faults`: the first 20 of `fault_count`.
    """

    rows: pa.Table
    votes: list[int | None]
    counts: dict[int, int]
    fault_count: int
    faults: list[RowFault]
    seconds_per_row: float
    differing: Differing | None

    @property
    def deterministic(self) -> bool:
        return self.differing is None


def trial(function: Function, rows: pa.Table, *, key_column: str, seed: int) -> Trial:
    """Try the function on `rows`, or on 2,000 of them drawn by `seed`, in their order.

    `rows`: from its rule's table, as it is; `key_column` names one of them. CannotBeDone: the code
    does not load, takes too long (naming the row where it can) or names a column that is not there.
    """
    random = np.random.default_rng(seed)
    if rows.num_rows > MOST_ROWS:
        rows = rows.take(np.sort(random.choice(rows.num_rows, MOST_ROWS, replace=False)))
    if function.lf_type != "custom":
        begun = time.perf_counter()
        votes = vote_without_code(function, rows)
        return _summary(rows, votes, time.perf_counter() - begun, [], None)
    deadline = time.monotonic() + MOST_SECONDS
    with Voting(function, rows, key_column) as voting:
        begun = time.perf_counter()
        votes = voting.votes(rows)
        seconds = time.perf_counter() - begun
        faulty = np.flatnonzero(votes == FAULT)[:SHOWN_FAULTS]
        faults = [_fault(voting, rows, int(row), deadline) for row in faulty]
    differing = _differing(function, rows, votes, key_column, random, deadline=deadline)
    return _summary(rows, votes, seconds, faults, differing)


def _summary(
    rows: pa.Table,
    votes: Votes,
    seconds: float,
    faults: list[RowFault],
    differing: Differing | None,
) -> Trial:
    said = [_vote(vote) for vote in votes]
    return Trial(
        rows=rows,
        votes=said,
        counts=dict(sorted(Counter(vote for vote in said if vote is not None).items())),
        fault_count=said.count(None),
        faults=faults,
        seconds_per_row=seconds / max(len(votes), 1),
        differing=differing,
    )


def _vote(vote: np.int32) -> int | None:
    return None if vote == FAULT else int(vote)


def _in_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise CannotBeDone(
            f"it was stopped: trying it took longer than {MOST_SECONDS:g} s in all, run twice; "
            "try it on fewer rows, or make it faster"
        )


def _fault(voting: Voting, rows: pa.Table, row: int, deadline: float) -> RowFault:
    """The row once more, alone: a chunk's reply tells of its first fault only."""
    _in_time(deadline)
    voting.first_fault = ""
    voting.votes(rows.slice(row, 1))
    said = voting.first_fault or "it failed, but not when it was run again"
    lines = []
    for line in said.splitlines():
        if found := re.match(r"line (\d+), in ", line):
            lines.append(int(found.group(1)))
        elif not line.startswith("... "):
            break
    return RowFault(row, lines, said)


def _differing(
    function: Function,
    rows: pa.Table,
    votes: Votes,
    key_column: str,
    random: np.random.Generator,
    *,
    deadline: float,
) -> Differing | None:
    """Vote again, in a new process and another order; the first row that votes otherwise."""
    order = random.permutation(rows.num_rows)
    again = np.full(rows.num_rows, ABSTAIN, dtype=np.int32)
    with Voting(function, rows, key_column) as voting:
        for piece in np.array_split(order, PIECES):
            _in_time(deadline)
            again[piece] = voting.votes(rows.take(piece))
    differ = np.flatnonzero(votes != again)
    if not len(differ):
        return None
    row = int(differ[0])
    return Differing(row, _vote(votes[row]), _vote(again[row]))
