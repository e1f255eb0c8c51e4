"""What code in the sandbox can name: builtins, and what of each module is handed out.

Modules themselves are never handed out: `re.enum.sys.modules["os"]` is a way out of any of them.
This file is read on both sides of the wall and imports nothing.
"""

BUILTINS = frozenset(
    {
        "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter", "float", "frozenset",
        "int", "isinstance", "iter", "len", "list", "map", "max", "min", "next", "ord", "chr", "pow",
        "range", "repr", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple", "zip",
        "ArithmeticError", "AttributeError", "Exception", "IndexError", "KeyError", "LookupError",
        "OverflowError", "StopIteration", "TypeError", "ValueError", "ZeroDivisionError",
    }
)  # fmt: skip

EXPORTS: dict[str, frozenset[str]] = {
    "re": frozenset(
        {
            "compile", "escape", "findall", "finditer", "fullmatch", "match", "search", "split",
            "sub", "subn", "error", "A", "ASCII", "I", "IGNORECASE", "M", "MULTILINE", "S",
            "DOTALL", "U", "UNICODE", "X", "VERBOSE", "NOFLAG",
        }
    ),
    "datetime": frozenset(
        {"date", "datetime", "time", "timedelta", "timezone", "UTC", "MINYEAR", "MAXYEAR"}
    ),
    "math": frozenset(
        {
            "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "comb",
            "copysign", "cos", "cosh", "degrees", "dist", "e", "erf", "erfc", "exp", "exp2",
            "expm1", "fabs", "factorial", "floor", "fmod", "frexp", "fsum", "gamma", "gcd", "hypot",
            "inf", "isclose", "isfinite", "isinf", "isnan", "isqrt", "lcm", "ldexp", "lgamma",
            "log", "log10", "log1p", "log2", "modf", "nan", "nextafter", "perm", "pi", "pow",
            "prod", "radians", "remainder", "sin", "sinh", "sqrt", "tan", "tanh", "tau", "trunc",
            "ulp",
        }
    ),
    "statistics": frozenset(
        {
            "mean", "fmean", "geometric_mean", "harmonic_mean", "median", "median_low",
            "median_high", "median_grouped", "mode", "multimode", "quantiles", "pstdev",
            "pvariance", "stdev", "variance", "covariance", "correlation", "linear_regression",
            "StatisticsError",
        }
    ),
}  # fmt: skip
