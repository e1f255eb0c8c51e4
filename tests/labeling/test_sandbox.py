"""Code in the sandbox: what it may answer, and that it ends when it is told to."""

import datetime as dt
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from labeling.sandbox import child, host
from labeling.sandbox.columns import pack
from labeling.sandbox.host import FAULT, Chunk, Sandbox, SandboxFailed
from labeling.sandbox.names import EXPORTS
from tests.labeling.watching import ROOT, wait_until


def body(*lines: str) -> str:
    return "def labeling_function(row):\n" + "\n".join(f"    {line}" for line in lines)


def votes(
    code: str, columns: dict[str, list[Any]], *, allowed_imports: Sequence[str] = ()
) -> Chunk:
    count = len(next(iter(columns.values())))
    with Sandbox(
        code, columns=list(columns), allowed_imports=allowed_imports, rows=count
    ) as running:
        return running.votes(list(columns.values()), count)


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_every_row_gets_the_vote_that_plain_python_gives() -> None:
    code = body("if row['a'] is None:", "    return -1", "return 1 if row['a'] > row['b'] else 2")
    chunk = votes(code, {"a": [3, None, 0.5], "b": [1, 1, 1]})
    assert chunk.votes.tolist() == [1, -1, 2]
    assert chunk.first_fault == ""


def test_lists_and_records_cross_into_a_process_that_can_open_nothing() -> None:
    """A zone's file and pandas are out of its reach: what crosses must not need them."""
    noon = dt.datetime(2024, 1, 2, 12, tzinfo=dt.UTC)
    zoned = pa.timestamp("us", "America/Los_Angeles")
    columns = {
        "times": (pa.array([[noon, None]], pa.list_(zoned)), [noon, None]),
        "fine": (pa.array([[noon]], pa.list_(pa.timestamp("ns", "UTC"))), [noon]),
        "record": (
            pa.array([{"at": noon, "n": Decimal("1.5")}]),
            {"at": noon, "n": Decimal("1.5")},
        ),
        "map": (pa.array([[("a", noon)]], pa.map_(pa.string(), zoned)), [("a", noon)]),
        "stay": (pa.array([1_500_000_000], pa.duration("ns")), dt.timedelta(seconds=1.5)),
        "id": (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\1" * 16], pa.binary(16))),
            "01010101-0101-0101-0101-010101010101",
        ),
    }
    compared = " and ".join(f"repr(row[{name!r}]) == row['x_{name}']" for name in columns)
    packed = [pack(pa.chunked_array([array])) for array, _ in columns.values()]
    expected = [[repr(value)] for _, value in columns.values()]
    names = [*columns, *(f"x_{name}" for name in columns)]
    code = body(f"return 1 if {compared} else 2")
    with Sandbox(code, columns=names, allowed_imports=[], rows=1) as running:
        assert running.votes([*packed, *expected], 1).votes.tolist() == [1]


def test_a_function_that_reads_no_column_votes_on_every_row_all_the_same() -> None:
    with Sandbox(body("return 4"), columns=[], allowed_imports=[], rows=3) as running:
        assert running.votes([], 3).votes.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (body("return 1 / row['a']"), "line 2, in labeling_function: return 1 / row['a']"),
        (body("return row['zz']"), "KeyError: 'zz'"),
        (body("return True"), "it returned True"),
        (body("return None"), "it returned None"),
        (body("return 'x'"), "it returned 'x'"),
        (body("return 1.0"), "it returned 1.0"),
        (body("return 10 ** 50"), "OverflowError"),
        (body("return labeling_function(row)"), "RecursionError"),
        (body("return len([0] * 10 ** 10)"), "MemoryError"),
        (body("return len('a' * 10 ** 11)"), "MemoryError"),
        (body("return open('/etc/passwd')"), "NameError"),
        (body("import os", "return 1"), "ImportError: os cannot be imported here"),
        (body("return ().__class__.__base__.__subclasses__()[0].x"), "AttributeError"),
    ],
)
def test_a_row_that_fails_is_told_apart_with_what_it_said(code: str, said: str) -> None:
    chunk = votes(code, {"a": [0, 0]})
    assert chunk.votes.tolist() == [FAULT, FAULT]
    assert said in chunk.first_fault
    assert chunk.first_fault_row == 0


def test_only_the_rows_that_fail_lose_their_vote() -> None:
    chunk = votes(body("return 1 if 1 / row['a'] > 0 else 2"), {"a": [1, 0, -1, 0]})
    assert chunk.votes.tolist() == [1, FAULT, 2, FAULT]
    assert chunk.first_fault_row == 1


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("labeling_function = 3", "defines no labeling_function"),
        ("def labeling_function(row:", "SyntaxError"),
        ("raise SystemExit", "NameError"),
        ("class A:\n    pass", "__build_class__"),
    ],
)
def test_code_that_does_not_load_says_why(code: str, said: str) -> None:
    with pytest.raises(SandboxFailed, match="does not load") as caught:
        votes(code, {"a": [1]})
    assert said in str(caught.value)


def test_modules_are_export_lists_and_not_the_modules() -> None:
    for module in EXPORTS:
        code = f"import {module}\n" + body(f"return 1 if {module}.sys else 2")
        assert "AttributeError" in votes(code, {"a": [1]}, allowed_imports=[module]).first_fault


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        (body("return datetime.datetime.strptime('7', '%d').day"), ["datetime"]),
        ("from datetime import datetime\n" + body("return datetime(2024, 1, 7).day"), ["datetime"]),
        (body("return int(statistics.mode([7, 7, 1]))"), ["statistics"]),
        (body("return int(statistics.linear_regression([0, 1], [0, 7]).slope)"), ["statistics"]),
        (body("return int(re.search(r'(\\d)', 'a7').group(1))"), ["re"]),
        (body("return math.isqrt(49)"), ["math"]),
    ],
)
def test_the_four_modules_work(code: str, modules: list[str]) -> None:
    assert votes(code, {"a": [1]}, allowed_imports=modules).votes.tolist() == [7]


def test_a_module_that_is_not_allowed_cannot_be_imported() -> None:
    chunk = votes("def labeling_function(row):\n    import re\n    return 1", {"a": [1]})
    assert "re cannot be imported here" in chunk.first_fault


def test_a_time_without_a_zone_is_utc_whatever_the_machines_zone_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    code = body("return datetime.datetime.fromtimestamp(row['a']).hour")
    assert votes(code, {"a": [3600]}, allowed_imports=["datetime"]).votes.tolist() == [1]


def test_sets_of_texts_iterate_alike_in_every_process() -> None:
    code = body("return [ord(c) for c in {'a', 'b', 'c', 'd', 'e'}][0]")
    assert len({votes(code, {"a": [1]}).votes[0] for _ in range(4)}) == 1


def test_an_endless_row_is_killed_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CHUNK_SECONDS", 0.5)
    running = Sandbox(body("while True:", "    pass"), columns=["a"], allowed_imports=[], rows=1)
    with running, pytest.raises(SandboxFailed, match=r"1 rows took longer than 0\.5 s"):
        running.votes([[1]], 1)
    process = running._process
    assert process is not None
    assert process.returncode == -9


@pytest.mark.parametrize("code", ["while True:\n    pass", "x = 10 ** 10 ** 8"])
def test_code_that_never_ends_loading_is_killed(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CHUNK_SECONDS", 0.5)
    with pytest.raises(SandboxFailed, match="loading its code took longer"):
        votes(code, {"a": [1]})


def test_a_pattern_that_explodes_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CHUNK_SECONDS", 0.5)
    code = body("return 1 if re.match('(a+)+$', 'a' * 40 + 'b') else 2")
    with pytest.raises(SandboxFailed, match="took longer"):
        votes(code, {"a": [1]}, allowed_imports=["re"])


def test_it_can_be_killed_from_another_thread_while_it_votes() -> None:
    running = Sandbox(body("while True:", "    pass"), columns=["a"], allowed_imports=[], rows=1)
    with running:
        threading.Timer(0.2, running.kill).start()
        started = time.monotonic()
        with pytest.raises(SandboxFailed, match="SIGKILL"):
            running.votes([[1]], 1)
        assert time.monotonic() - started < 3


def test_the_process_has_nothing_of_our_environment_and_a_session_of_its_own() -> None:
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        with Sandbox(body("return 1"), columns=["a"], allowed_imports=[], rows=1) as running:
            process = running._process
            assert process is not None
            entry = Path(f"/proc/{process.pid}")
            assert (entry / "environ").read_bytes() == b"PYTHONHASHSEED=0\0TZ=UTC0\0"
            assert sorted(int(fd.name) for fd in (entry / "fd").iterdir()) == [0, 1, 2]
            assert os.getsid(process.pid) == process.pid
    finally:
        os.close(secret)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_nothing_is_left_behind_when_the_worker_is_killed() -> None:
    script = (
        "from labeling.sandbox.host import Sandbox\n"
        "code = 'def labeling_function(row):\\n    while True: pass'\n"
        "with Sandbox(code, columns=['a'], allowed_imports=[], rows=1) as running:\n"
        "    print(running._process.pid, flush=True)\n"
        "    running.votes([[1]], 1)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    assert not is_gone(child)
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert wait_until(lambda: is_gone(child), seconds=1)


@pytest.mark.parametrize(
    "answer",
    ["b'junk' * 100", "b'LFV1' + b'\\xff' * 12", "HEADER.pack(MAGIC, 9, 0, -1) + b'\\0' * 36"],
)
def test_an_answer_that_is_no_reply_is_refused(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the code had broken out of its own interpreter and wrote to the pipe itself."""
    broken_out = tmp_path / "child.py"
    source = Path(child.__file__).read_text()
    head, start, tail = source.partition("    while True:\n        count, columns = receive()")
    broken_out.write_text(f"{head}    os.write(1, {answer})\n    os._exit(0)\n{start}{tail}")
    shutil.copy(Path(child.__file__).with_name("locks.py"), tmp_path)
    monkeypatch.setattr(child, "__file__", str(broken_out))
    with pytest.raises(SandboxFailed, match=r"no reply|more than a reply|ended"):
        votes(body("return 1"), {"a": [1]})
