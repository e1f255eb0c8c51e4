"""What the code of a labeling function may say, judged when it is saved.

The judgement is for the writer: it names the line and says what to write instead, long before a
worker meets the code. It is not the wall: code that passes still runs in `labeling.sandbox`, which
trusts none of it. An allow-list of syntax is used all the same, because what is not on it (classes,
decorators, generators, `match`, attribute names with an underscore) is how such walls are tested.

State that outlives a row is refused (mutable module-level values and defaults): votes would depend
on how the rows are cut into chunks.
"""

import ast
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from labeling.sandbox.names import BUILTINS, EXPORTS
from tippers.errors import CannotBeDone

FUNCTION = "labeling_function"
ABSTAIN = "ABSTAIN"
MAX_CODE = 20_000  # characters
SHOWN_PROBLEMS = 5
TOO_DEEP = "the code is nested too deeply; give the parts names of their own"

ALLOWED_NODES: tuple[type[ast.AST], ...] = (
    # module and functions
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Lambda, ast.Return,
    ast.Import, ast.ImportFrom, ast.alias,
    # statements
    ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.Pass, ast.Assert,
    ast.If, ast.For, ast.While, ast.Break, ast.Continue, ast.Try, ast.ExceptHandler, ast.Raise,
    # expressions
    ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Starred, ast.Call,
    ast.keyword, ast.IfExp, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.JoinedStr,
    ast.FormattedValue, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp,
    ast.DictComp, ast.GeneratorExp, ast.comprehension,
    # operators and contexts
    ast.boolop, ast.operator, ast.unaryop, ast.cmpop, ast.Load, ast.Store,
)  # fmt: skip
INSTEAD: dict[type[ast.AST], str] = {
    ast.ClassDef: "a class is not allowed; use functions and tuples",
    ast.AsyncFunctionDef: "async is not allowed; write a plain function",
    ast.Await: "await is not allowed; write a plain function",
    ast.AsyncFor: "async is not allowed; write a plain loop",
    ast.AsyncWith: "async is not allowed",
    ast.Match: "match is not allowed; write if and elif",
    ast.Global: "global is not allowed; a vote may depend on its row alone",
    ast.Nonlocal: "nonlocal is not allowed; a vote may depend on its row alone",
    ast.Yield: "a generator function is not allowed; return a list",
    ast.YieldFrom: "a generator function is not allowed; return a list",
    ast.With: "with is not allowed; there is nothing to open",
    ast.Delete: "del is not allowed; let the name be",
    ast.TryStar: "except* is not allowed; write except",
}
# Parts of refused statements, which would say the same again.
TOLD_BY_THE_STATEMENT = (ast.match_case, ast.pattern, ast.withitem, ast.Del)
MODULE_STATEMENTS = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef)

REFUSED_PREFIXES = ("_", "gi_", "f_", "tb_", "co_", "cr_", "ag_", "func_")
REFUSED_ATTRIBUTES = {
    "format": "write an f-string instead",
    "format_map": "write an f-string instead",
    "obj": "an exception's object is out of reach; its text is str(error)",
    "mro": "classes are out of reach; ask isinstance(value, kind)",
    "with_traceback": "tracebacks are out of reach; raise the exception as it is",
    "add_note": "raise another exception instead",
}
INSTEAD_OF_NAMES = {
    "open": "there are no files; read the row's columns",
    "print": "nobody reads it; a trial shows how each row votes",
    "eval": "write the expression itself",
    "exec": "write the statements themselves",
    "compile": "write the statements themselves",
    "__import__": "write an import line",
    "type": "ask isinstance(value, kind)",
    "getattr": "write value.name",
    "hasattr": "write try and except AttributeError",
    "format": "write an f-string instead",
    "globals": "name the value itself",
    "locals": "name the value itself",
    "vars": "name the value itself",
    "np": "there is no numpy; use math and statistics",
    "numpy": "there is no numpy; use math and statistics",
    "pd": "there is no pandas; a row is a plain dictionary",
    "pandas": "there is no pandas; a row is a plain dictionary",
    "time": "there is no clock here; subtract one datetime from another",
}
IMMUTABLE_MAKERS = frozenset(
    {"abs", "bool", "float", "frozenset", "int", "len", "max", "min", "pow", "range", "round",
     "str", "sum", "tuple"}
)  # fmt: skip
CONTAINER_MAKERS = frozenset({"frozenset", "tuple", "len", "max", "min", "sum"})
IMMUTABLE_MODULE_CALLS: dict[str, frozenset[str] | None] = {
    "math": None,
    "datetime": None,
    "re": frozenset({"compile", "escape"}),
}  # None: whatever it returns


class CodeRefused(CannotBeDone):
    """The code says what it may not; one sentence a problem, each with its line."""

    def __init__(self, problems: list[str]) -> None:
        more = len(problems) - SHOWN_PROBLEMS
        shown = problems[:SHOWN_PROBLEMS] + ([f"and {more} more problems"] if more > 0 else [])
        super().__init__("; ".join(shown), field="code", code="code_refused")
        self.problems = problems


@dataclass(frozen=True)
class Judgement:
    """`columns`: the names that the code reads from its row; None when it may read any."""

    columns: frozenset[str] | None


def judge(code: str, *, allowed_imports: Iterable[str], values: Mapping[int, str]) -> Judgement:
    """Judge a labeling function's source; CodeRefused lists what is wrong with it.

    `values` gives the concept's values by id: a constant named as one must hold its id.
    """
    tree = _parse(code)
    allowed = frozenset(allowed_imports)
    try:
        problems = sorted(
            {
                *_shape(tree),
                *_syntax(tree, allowed),
                *_names(tree, allowed),
                *_names_of_modules(tree),
                *_state(tree),
                *_constants(tree, constants(values)),
            }
        )
    except RecursionError as error:
        raise CodeRefused([TOO_DEEP]) from error
    if problems:
        raise CodeRefused([f"line {line}: {what}" if line else what for line, what in problems])
    return Judgement(_columns(tree))


def constants(values: Mapping[int, str]) -> dict[str, int]:
    """A Python name for every concept value, in the order given: {"WORK_LAPTOP": 2}.

    Whatever a value is called, its name is a valid identifier, and no two values share one.
    """
    named: dict[str, int] = {ABSTAIN: -1}
    for cv_id, name in values.items():
        identifier = _identifier(name)
        while identifier in named:
            identifier = f"{identifier}_{cv_id}"
        named[identifier] = cv_id
    del named[ABSTAIN]
    return named


def _identifier(name: str) -> str:
    """The name in capitals, as Python itself would read it: normalized, and made of its letters."""
    capitals = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).upper())
    # Python's own word: \w takes signs that no identifier may hold.
    letters = [mark if f"A{mark}".isidentifier() else " " for mark in capitals]
    identifier = re.sub(" +", "_", "".join(letters)).strip("_") or "VALUE"
    return identifier if identifier.isidentifier() else f"VALUE_{identifier}"


def template(values: Mapping[int, str], applicable_cv_ids: Iterable[int]) -> str:
    """Code to start from: one constant for each applicable value, and a function that abstains."""
    names = {cv_id: name for name, cv_id in constants(values).items()}
    chosen = [(names[cv_id], cv_id) for cv_id in applicable_cv_ids]
    lines = [f"{name} = {cv_id}" for name, cv_id in chosen]
    return "\n".join(
        [
            *lines,
            f"{ABSTAIN} = -1",
            "",
            f"def {FUNCTION}(row):",
            "    # TODO: decide how this row votes",
            "    # Available columns: row['column_name']",
            f"    # Example: return {chosen[0][0]} if row['column_name'] > 0 else {ABSTAIN}",
            f"    return {ABSTAIN}",
        ]
    )


Problem = tuple[int, str]  # line (0: the whole code), what is wrong


def _parse(code: str) -> ast.Module:
    if len(code) > MAX_CODE:
        raise CodeRefused([f"the code has {len(code)} characters; {MAX_CODE} is the most"])
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise CodeRefused([f"line {error.lineno or 1}: {error.msg}"]) from error
    except (RecursionError, MemoryError) as error:
        raise CodeRefused([TOO_DEEP]) from error
    except ValueError as error:
        raise CodeRefused([f"the code cannot be read: {error}"]) from error


def _shape(tree: ast.Module) -> Iterator[Problem]:
    """One labeling_function(row), and nothing at module level that does something."""
    functions = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == FUNCTION
    ]
    if len(functions) != 1 or functions[0] not in tree.body:
        yield 0, f"the code must define {FUNCTION}(row) exactly once, at module level"
    for function in functions:
        given = function.args
        names = [arg.arg for arg in (*given.posonlyargs, *given.args)]
        others = (given.vararg, given.kwarg, *given.kwonlyargs)
        if len(names) != 1 or any(others) or given.defaults:
            yield function.lineno, f"{FUNCTION} takes exactly one argument: the row"
    for node in tree.body:
        if isinstance(node, MODULE_STATEMENTS) or _is_docstring(node):
            continue
        if type(node) not in INSTEAD:
            yield (
                node.lineno,
                ("only imports, constants and functions may stand outside of a function"),
            )


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _syntax(tree: ast.Module, allowed: frozenset[str]) -> Iterator[Problem]:
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if not isinstance(node, (*ALLOWED_NODES, *TOLD_BY_THE_STATEMENT)):
            kind = type(node).__name__
            yield line, INSTEAD.get(type(node), f"{kind} is not allowed here")
        match node:
            case ast.FunctionDef(decorator_list=[_, *_]):
                yield line, "a decorator is not allowed; call the function instead"
            case ast.Attribute():
                yield from _attribute(node)
            case ast.Import():
                for alias in node.names:
                    yield from _import(line, alias.name, allowed)
            case ast.ImportFrom():
                yield from _import_from(node, allowed)


def _attribute(node: ast.Attribute) -> Iterator[Problem]:
    if not isinstance(node.ctx, ast.Load):
        yield (
            node.lineno,
            f"setting the attribute {node.attr} is not allowed; keep the value under a name",
        )
    if node.attr in REFUSED_ATTRIBUTES:
        yield node.lineno, f".{node.attr} is not allowed: {REFUSED_ATTRIBUTES[node.attr]}"
    elif node.attr.startswith(REFUSED_PREFIXES):
        insides = "the insides of objects are out of reach; use the value itself"
        yield node.lineno, f".{node.attr} is not allowed: {insides}"


def _import(line: int, module: str, allowed: frozenset[str]) -> Iterator[Problem]:
    if module not in EXPORTS:
        yield line, f"{module} cannot be imported; there are: {', '.join(sorted(EXPORTS))}"
    elif module not in allowed:
        yield line, f"{module} is not in allowed_imports; add it there"


def _import_from(node: ast.ImportFrom, allowed: frozenset[str]) -> Iterator[Problem]:
    module = node.module or ""
    if node.level:
        yield node.lineno, "a relative import is not allowed"
        return
    yield from _import(node.lineno, module, allowed)
    if module in EXPORTS:
        for alias in node.names:
            yield from _exported(node.lineno, module, alias.name)


def _exported(line: int, module: str, name: str) -> Iterator[Problem]:
    if name not in EXPORTS[module]:
        there = ", ".join(sorted(EXPORTS[module]))
        yield line, f"{module} has no {name} here; there are: {there}"


def _bound(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that the code binds, with its line."""
    yield from _assigned(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((node.lineno, alias.asname or alias.name) for alias in node.names)


def _assigned(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The same without what it imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.FunctionDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def _names(tree: ast.Module, allowed: frozenset[str]) -> Iterator[Problem]:
    bound = list(_bound(tree))
    for line, name in bound:
        if name.startswith("__"):
            yield line, f"the name {name} is not allowed; begin it with a letter"
    known = {name for _, name in bound} | BUILTINS | (allowed & EXPORTS.keys())
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known:
            yield node.lineno, f"the name {node.id} is not available here; {_instead_of(node.id)}"


def _instead_of(name: str) -> str:
    if name in EXPORTS:
        return "add it to allowed_imports"
    return INSTEAD_OF_NAMES.get(name, "define it first")


def _names_of_modules(tree: ast.Module) -> Iterator[Problem]:
    """Names that a module does not hand out. What may stand for something else too is let be."""
    meanings: dict[str, set[str]] = {}
    for name, path in _imports(tree):
        meanings.setdefault(name, set()).add(path)
    for name in EXPORTS:
        meanings.setdefault(name, {name})
    for _, name in _assigned(tree):
        meanings.pop(name, None)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if name in meanings:
                (path, *others) = meanings[name]
                if path in EXPORTS and not others and not attr.startswith(REFUSED_PREFIXES):
                    yield from _exported(node.lineno, path, attr)


def _state(tree: ast.Module) -> Iterator[Problem]:
    """Values that would carry something from one row to the next."""
    modules = dict(_imported(tree))
    # A builtin's name that the code gives to something else promises nothing any more.
    modules |= {name: "" for name in _own_names(tree) if name in IMMUTABLE_MAKERS}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if not all(isinstance(name, ast.Name) for target in targets for name in _flat(target)):
                yield node.lineno, "only names may be assigned outside of a function"
            if not _immutable(node.value, modules):
                yield (
                    node.lineno,
                    (
                        "a value outside of a function must not be changeable; use a tuple or a "
                        "frozenset, or make it inside the function"
                    ),
                )
    for inner in ast.walk(tree):
        if isinstance(inner, ast.FunctionDef | ast.Lambda):
            for default in (*inner.args.defaults, *inner.args.kw_defaults):
                if default is not None and not _immutable(default, modules):
                    yield inner.lineno, "a default must not be changeable; use None or a tuple"


def _own_names(tree: ast.Module) -> Iterator[str]:
    """What functions and values at module level are called."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name):
                yield name
            case ast.Assign() | ast.AnnAssign():
                yield from (name for _, name in _assigned(node))


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name that stands for a module or something of one, with the dotted name of that."""
    yield from ((name, name) for name in EXPORTS)
    yield from _imports(tree)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The same, of what the code itself imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _flat(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, ast.Tuple | ast.List):
        for item in target.elts:
            yield from _flat(item)
    else:
        yield target


def _immutable(  # noqa: PLR0911 - one row per kind of expression
    value: ast.expr, modules: Mapping[str, str]
) -> bool:
    match value:
        case ast.Constant() | ast.Name() | ast.JoinedStr() | ast.Lambda():
            return True
        case ast.Attribute(value=ast.Name()):
            return True
        case ast.Tuple(elts=parts) | ast.BoolOp(values=parts):
            return all(_immutable(part, modules) for part in parts)
        case ast.UnaryOp(operand=part) | ast.Subscript(value=part):
            return _immutable(part, modules)
        case ast.BinOp(left=left, right=right):
            return _immutable(left, modules) and _immutable(right, modules)
        case ast.Compare(left=left, comparators=rest):
            return all(_immutable(part, modules) for part in (left, *rest))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return all(_immutable(part, modules) for part in (test, body, orelse))
        case ast.Call():
            return _makes_immutable(value, modules)
    return False


def _makes_immutable(call: ast.Call, modules: Mapping[str, str]) -> bool:
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    match call.func:
        case ast.Name(id=name) if name in modules:
            if not _calls_immutable(modules[name]):
                return False
        case ast.Name(id=name) if name in IMMUTABLE_MAKERS:
            # Of more than one list, max gives one back; of one, it gives what is in it.
            if name in CONTAINER_MAKERS and len(call.args) == 1:
                (given,) = call.args
                items = given.elts if isinstance(given, ast.List | ast.Set) else [given]
                arguments[:1] = items
        case ast.Attribute() as function:
            names = [function.attr]
            root = function.value
            while isinstance(root, ast.Attribute):
                names.append(root.attr)
                root = root.value
            start = modules.get(root.id) if isinstance(root, ast.Name) else None
            if start is None or not _calls_immutable(".".join([start, *reversed(names)])):
                return False
        case _:
            return False
    return all(_immutable(argument, modules) for argument in arguments)


def _calls_immutable(path: str) -> bool:
    """Whether what "module.function" returns can not be changed."""
    module, _, function = path.partition(".")
    names = IMMUTABLE_MODULE_CALLS.get(module, frozenset())
    return names is None or function in names


def _constants(tree: ast.Module, values: Mapping[str, int]) -> Iterator[Problem]:
    """A constant named as a concept value must hold that value's id."""
    ids = {**values, ABSTAIN: -1}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                pairs = [pair for target in targets for pair in _pairs(target, value)]
            case (
                ast.AnnAssign(target=target, value=ast.expr() as value)
                | ast.NamedExpr(target=target, value=value)
            ):
                pairs = list(_pairs(target, value))
            case _:
                continue
        for name, given in pairs:
            if name in ids and given != ids[name]:
                said = "something else" if given is None else given
                yield (
                    node.lineno,
                    (
                        f"{name} = {said} contradicts the concept: the id of {name} is {ids[name]}; "
                        f"write {name} = {ids[name]}"
                    ),
                )


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, object]]:
    """(name, literal) for each name assigned; None for what is not a literal."""
    if isinstance(target, ast.Name):
        try:
            yield target.id, ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError):
            yield target.id, None
    elif isinstance(target, ast.Tuple | ast.List):
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
        for number, item in enumerate(target.elts):
            yield from _pairs(item, parts[number] if number < len(parts) else value)


def _columns(tree: ast.Module) -> frozenset[str] | None:
    """The columns read as row['name'] or row.get('name'); None if the row is used otherwise."""
    function = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION
    )
    row = (*function.args.posonlyargs, *function.args.args)[0].arg
    columns: set[str] = set()
    plain = 0
    for node in ast.walk(function):
        match node:
            case ast.Subscript(
                value=ast.Name(id=name), slice=ast.Constant(value=str(column)), ctx=ast.Load()
            ) if name == row:
                columns.add(column)
                plain += 1
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get"),
                args=[ast.Constant(value=str(column)), *_],
            ) if name == row:
                columns.add(column)
                plain += 1
    used = sum(isinstance(node, ast.Name) and node.id == row for node in ast.walk(function))
    return frozenset(columns) if used == plain else None
