"""Everything that labeling code may name works after the lock.

A standard-library function that imports or opens something when it is first called would die
there: each is called once, all in one sandbox, and must give what it gives outside.
"""

import builtins
import datetime  # noqa: ICN001 - under the name that labeling code has it by
import math
import re
import statistics

from labeling.sandbox.host import Sandbox
from labeling.sandbox.names import BUILTINS, EXPORTS

# An expression for each name; "{}" stands for the name itself.
CALLS = {
    "re": {
        "compile": "{}('(?P<n>a+)b').match('aab').groupdict()",
        "escape": "{}('a.b')",
        "findall": "{}('[a-c]+', 'abxbc')",
        "finditer": "[m.span() for m in {}('b', 'abb')]",
        "fullmatch": "{}('a|b', 'b').group()",
        "match": "{}('\\\\N{{DIGIT ONE}}', '1').group()",
        "search": "{}('straße', 'STRASSE STRAẞE', re.IGNORECASE).start()",
        "split": "{}(',', 'a,b')",
        "sub": "{}('(a)', r'\\\\1\\\\1', 'ab')",
        "subn": "{}('a', lambda m: m[0].upper(), 'aab')",
        "error": "str({}('x', 'p', 0))",
    },
    "datetime": {
        "date": "({0}(2024, 2, 29).strftime('%A %j %x'), {0}.fromisocalendar(2024, 9, 4))",
        "datetime": (
            "({0}.strptime('7 Jan 2024 PM +0200', '%d %b %Y %p %z'), "
            "{0}.fromisoformat('2024-01-07T12:00:00+00:00').isoformat(), "
            "{0}.fromtimestamp(0, datetime.UTC), {0}(2024, 1, 7).ctime(), "
            "f'{{{0}(2024, 1, 7):%c %Z}}', {0}.now(datetime.UTC) > {0}(2024, 1, 1, tzinfo=datetime.UTC))"
        ),
        "time": "{}(1, 2, 3).isoformat()",
        "timedelta": "{}(days=1.5).total_seconds()",
        "timezone": "{}(datetime.timedelta(hours=2)).utcoffset(None)",
    },
    "math": {
        "comb": "{}(5, 2)", "dist": "{}((0, 0), (3, 4))", "factorial": "{}(5)",
        "fsum": "{}([0.1] * 10)", "gcd": "{}(12, 18)", "hypot": "{}(3, 4)", "isqrt": "{}(50)",
        "lcm": "{}(4, 6)", "ldexp": "{}(0.5, 3)", "perm": "{}(5, 2)", "prod": "{}([2, 3])",
        "atan2": "{}(1, 2)", "copysign": "{}(1, -2)", "fmod": "{}(7, 3)", "isclose": "{}(1, 1)",
        "nextafter": "{}(1, 2)", "pow": "{}(2, 0.5)", "remainder": "{}(7, 3)",
        "acosh": "{}(1.5)",
    },
    "statistics": {
        "mean": "({0}([1, 2.5]), {0}([1, 2]))", "fmean": "{}([1, 2], [3, 1])",
        "quantiles": "{}([1, 2, 4, 8], n=4)", "covariance": "{}([1, 2, 3], [1, 3, 2])",
        "correlation": "{}([1, 2, 3], [1, 3, 2])", "multimode": "{}([1, 1, 2, 2])",
        "linear_regression": "{}([1, 2, 3], [1, 3, 2])", "StatisticsError": "repr({}('x'))",
        "median_grouped": "{}([1, 2, 2, 3])", "mode": "{}('aab')",
    },
    "builtins": {
        "abs": "{}(-1)", "all": "{}([1])", "any": "{}([0])", "bool": "{}(1)", "chr": "{}(97)",
        "dict": "{}(a=1)", "divmod": "{}(7, 2)", "enumerate": "list({}('ab'))",
        "filter": "list({}(None, [0, 1]))", "float": "{}('1.5')", "frozenset": "{}([1])",
        "int": "({0}('7'), {0}('ff', 16))", "isinstance": "{}(1, int)", "iter": "next({}('a'))",
        "len": "{}('ab')", "list": "{}('ab')", "map": "list({}(str, [1]))", "max": "{}(1, 2)",
        "min": "{}(1, 2)", "next": "{}(iter('a'))", "ord": "{}('a')", "pow": "{}(2, 10, 7)",
        "range": "list({}(3))", "repr": "{}('ä\\\\x00')", "reversed": "list({}('ab'))",
        "round": "{}(2.675, 2)", "set": "{}([1])", "slice": "'abc'[{}(1)]",
        "sorted": "{}('ba', key=str.lower)", "str": "{}(1.5).rjust(5).encode().decode()",
        "sum": "{}([1, 2])", "tuple": "{}('ab')", "zip": "list({}('ab', 'cd'))",
    },
}  # fmt: skip
# How the rest of a module is used.
OTHERWISE = {
    "math": "{}(0.5)",
    "statistics": "{}([1, 2, 3, 4])", "builtins": "repr({}('x'))",
}  # fmt: skip
MODULES = {"re": re, "datetime": datetime, "math": math, "statistics": statistics}


def expression(module: str, name: str) -> str:
    """Source that uses the name."""
    said = name if module == "builtins" else f"{module}.{name}"
    if name in CALLS[module]:
        return CALLS[module][name].format(said)
    real = getattr(MODULES.get(module, builtins), name)
    return OTHERWISE[module].format(said) if callable(real) else f"repr({said})"


def test_every_name_that_is_handed_out_works_after_the_lock() -> None:
    cases = [
        expression(module, name)
        for module, names in {**EXPORTS, "builtins": BUILTINS}.items()
        for name in sorted(names)
    ]
    outside = [repr(eval(case, dict(MODULES))) for case in cases]
    calls = "\n".join(f"def f{n}():\n    return {case}" for n, case in enumerate(cases))
    chosen = ", ".join(f"f{n}" for n in range(len(cases)))
    code = (
        f"{calls}\ndef labeling_function(row):\n"
        f"    said = repr(({chosen})[row['n']]())\n"
        "    if said != row['outside']:\n        raise ValueError(said)\n    return 1"
    )
    columns, failed = ["n", "outside"], {}
    with Sandbox(code, columns=columns, allowed_imports=list(EXPORTS), rows=len(cases)) as running:
        for n, expected in enumerate(outside):
            chunk = running.votes([[n], [expected]], 1)
            if chunk.votes.tolist() != [1]:
                failed[cases[n]] = chunk.first_fault.splitlines()[-1]
    assert failed == {}
    assert len(cases) > 130
