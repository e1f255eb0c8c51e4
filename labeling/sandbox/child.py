"""The sandbox's inside: a fresh interpreter that reads rows and writes votes.

Started by `labeling.sandbox.host` as `python -P -s -S -W ignore child.py PARENT_PID`; standard library only,
nothing of the product is importable here. On descriptor 0 come frames from the host (8 bytes of
length, then a pickle: the host is trusted by us, never we by it); on descriptor 1 goes a reply to
each: a header, raw int32 votes, and UTF-8 text for the first fault. Order: import all that user
code may ever need, read the setup, lock, and only then read the code.
"""

# What exported functions import when they are called must be here before the lock: _strptime, heapq,
# and unicodedata serve datetime, statistics and re.
import _strptime  # type: ignore[import-not-found]  # noqa: F401 - private, so it has no stub
import array
import builtins
import datetime as dt
import heapq  # noqa: F401
import marshal
import math
import os
import pickle
import re
import statistics
import struct
import sys
import unicodedata  # noqa: F401
from collections.abc import Callable, Iterator
from types import FunctionType, SimpleNamespace
from typing import Any

HEADER = struct.Struct("<4sIIi")  # magic, votes, bytes of text, row of the first fault or -1
MAGIC = b"LFV1"
LENGTH = struct.Struct("<Q")
MARSHAL_LIST = struct.Struct("<ci")
TIME = struct.Struct("10s")
datetime_of: Callable[..., dt.datetime] = dt.datetime  # also from ten bytes, as pickle calls it
FAULT = -(2**31)  # in place of a vote: this row failed
MOST_TEXT = 4000
CODE_FILE = "labeling_function"

TEXT, AWARE, NAIVE = "text", "aware", "naive"  # kinds of column, beside array's type codes

Votes = Callable[[list[list[Any]], int], list[Any]]


def read_exactly(size: int) -> bytes:
    """That many bytes from the host; its end of file is ours."""
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def receive() -> Any:
    """The host's next frame."""
    (size,) = LENGTH.unpack(read_exactly(LENGTH.size))
    return pickle.loads(read_exactly(size))  # noqa: S301 - the host's own bytes; see the module's text


def reply(votes: bytes = b"", text: str = "", row: int = -1) -> None:
    """One reply: votes as raw int32, and what the first faulty row said."""
    said = text.encode("utf-8", "replace")[:MOST_TEXT]
    data = HEADER.pack(MAGIC, len(votes) // 4, len(said), row) + votes + said
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def lock(setup: dict[str, Any]) -> list[str]:
    """Everything that takes rights away; the layers that are in place. See locks.py beside this.

    What it used is gone from memory afterwards as far as names lead: ctypes calls whatever it likes.
    """
    sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120 - pathlib takes 5 ms to import
    import locks  # type: ignore[import-not-found]  # a plain module here, for want of a package

    layers: list[str] = locks.lock(setup["layers"], setup["limits"], int(sys.argv[1]))
    del sys.path[0]
    for name in ("locks", "ctypes", "ctypes._endian", "_ctypes"):
        sys.modules.pop(name, None)
    return layers


def namespaces(exports: dict[str, list[str]]) -> dict[str, SimpleNamespace]:
    """Each module's exported names, and nothing else of it."""
    modules = {"re": re, "datetime": dt, "math": math, "statistics": statistics}
    return {
        name: SimpleNamespace(
            **{
                export: getattr(modules[name], export)
                for export in names
                if hasattr(modules[name], export)
            }
        )
        for name, names in exports.items()
    }


def load(setup: dict[str, Any], code: str, direct: str) -> tuple[FunctionType, Votes]:
    """Run the code's module level; its labeling_function, and the fastest way to all votes.

    `direct`: the same function as a loop over columns, where `direct.py` could write one.
    """
    spaces = namespaces(setup["exports"])
    allowed = {name: spaces[name] for name in setup["allowed_imports"]}

    def import_(name: str, *_: object) -> SimpleNamespace | None:
        if name in allowed:
            return allowed[name]
        if name in {"_strptime", "time"}:
            return None  # datetime's methods ask so and then take it from sys.modules themselves
        raise ImportError(f"{name} cannot be imported here")

    names: dict[str, Any] = {name: getattr(builtins, name) for name in setup["builtins"]}
    names["__import__"] = import_
    scope: dict[str, Any] = {"__builtins__": names, "__name__": CODE_FILE, **allowed}
    exec(compile(code, CODE_FILE, "exec", dont_inherit=True), scope)  # noqa: S102 - what this process is for
    function = scope.get("labeling_function")
    if not isinstance(function, FunctionType):
        raise TypeError("the code defines no labeling_function(row)")
    if not direct:
        return function, loop_for(function, setup["columns"])
    exec(compile(direct, CODE_FILE, "exec", dont_inherit=True), scope)  # noqa: S102 - as above
    votes_of_rows = scope["__direct"]
    return function, lambda values, _: votes_of_rows(zip(*values, strict=True))


def unpack(column: list[Any] | tuple[str, bytes, bytes]) -> list[Any]:
    """Python values of what `columns.pack` packed; None at the positions given last."""
    if isinstance(column, list):
        return column
    kind, data, nulls = column
    values: list[Any]
    if kind == TEXT:
        values = list(data.decode().split("\0"))
    elif kind == NAIVE:
        values = [datetime_of(state) for (state,) in TIME.iter_unpack(data)]
    elif kind == AWARE:
        zone = dt.UTC
        values = [datetime_of(state, zone) for (state,) in TIME.iter_unpack(data)]
    else:
        values = memoryview(data).cast(kind).tolist()  # type: ignore[call-overload]  # a format it knows
    for position in memoryview(nulls).cast("i"):
        values[position] = None
    return values


def loop_for(function: FunctionType, columns: list[str]) -> Votes:
    """A row loop with the columns' names written out: twice as fast as dict(zip(...))."""
    slots = [f"v{number}" for number in range(len(columns))]
    row = ", ".join(f"{name!r}: {slot}" for name, slot in zip(columns, slots, strict=True))
    head = f"for ({', '.join(slots)},) in zip(*values)" if slots else "for _ in range(count)"
    source = f"def votes_of(values, count):\n    return [function({{{row}}}) {head}]\n"
    scope: dict[str, Any] = {"function": function}
    exec(source, scope)  # noqa: S102 - our own text; the names are quoted by repr
    return scope["votes_of"]  # type: ignore[no-any-return]  # what exec defined


def quickly(votes_of: Votes, values: list[list[Any]], count: int) -> bytes:
    """All votes in one go; raises when any row fails, without saying which.

    Marshal's second version writes an int as "i" and four bytes and refuses or marks whatever else
    there is, True too: a third of the time of asking each vote for its type and packing it.
    """
    data = bytearray(marshal.dumps(votes_of(values, count), 2))
    del data[: MARSHAL_LIST.size]
    if len(data) != 5 * count or data[::5].count(b"i") != count:
        raise TypeError
    del data[::5]
    return bytes(data)


def rows_of(columns: list[str], values: list[list[Any]], count: int) -> Iterator[dict[str, Any]]:
    """The same rows one at a time."""
    if not columns:
        return ({} for _ in range(count))
    return (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))


def carefully(
    function: FunctionType,
    columns: list[str],
    values: list[list[Any]],
    count: int,
    lines: list[str],
) -> tuple[bytes, str, int]:
    """Row by row: FAULT for each that fails, and what the first one said."""
    votes = array.array("i", bytes(4 * count))
    first_row, text = -1, ""
    for number, row in enumerate(rows_of(columns, values, count)):
        try:
            vote = function(row)
            if type(vote) is not int:
                raise TypeError(
                    f"it returned {repr(vote)[:80]}; return a concept value's id, or -1 to abstain"
                )
            votes[number] = vote
        except Exception as error:  # noqa: BLE001 - whatever a row raises is that row's fault
            votes[number] = FAULT
            if first_row < 0:
                first_row, text = number, describe(error, lines)
    return votes.tobytes(), text, first_row


def describe(error: BaseException, lines: list[str]) -> str:
    """A traceback of the user's own lines, without ours and without reading any file."""
    said = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == CODE_FILE:
            number = trace.tb_lineno
            line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
            said.append(f"line {number}, in {code.co_name}: {line}")
        trace = trace.tb_next
    if len(said) > 12:
        said[6:-6] = [f"... {len(said) - 12} more ..."]
    try:
        sentence = str(error)[:1000]
    except Exception:  # noqa: BLE001 - even the message may be too large to build
        sentence = "(its message cannot be shown)"
    kind = type(error).__name__
    return "\n".join([*said, f"{kind}: {sentence}" if sentence else kind])


def main() -> None:
    """Load once, then answer chunk after chunk until the host closes the pipe."""
    setup = receive()
    try:
        layers = lock(setup)
    except OSError as error:
        reply(text=describe(error, []), row=0)
        return
    reply(text=" ".join(layers))
    code, direct = receive()
    lines = code.splitlines()
    try:
        function, votes_of = load(setup, code, direct)
    except BaseException as error:  # noqa: BLE001 - including a code's own SystemExit
        reply(text=describe(error, lines) or "it cannot be loaded", row=0)
        return
    reply()
    while True:
        count, columns = receive()
        values = [unpack(column) for column in columns]
        del columns
        try:
            data = quickly(votes_of, values, count)
        except Exception:  # noqa: BLE001 - the careful loop finds which row it was
            reply(*carefully(function, setup["columns"], values, count, lines))
        else:
            reply(data)
        del values  # before the next chunk is read


if __name__ == "__main__":
    main()
