"""A labeling function rewritten into one loop over its columns, without a dict for each row.

Building a row's dict, looking its names up and calling the function cost more than most functions
do with what they find. `row["stays"]` and `row.get("stays")` become the loop's variables where that
is all the code does with its row, and a body of nothing but `if` and `return` becomes one
expression. This is for speed alone: when any row fails, the function as it was written runs again,
so faults and their lines are its own.
"""

import ast
from collections.abc import Collection, Sequence

FUNCTION = "labeling_function"
DIRECT = "__direct"  # the policy lets no name begin so
ROWS, ROW = "__rows", "__row"


def direct(code: str, columns: Collection[str]) -> str:
    """The source of `__direct(tuples of these columns) -> list of votes`, which votes as the code.

    It runs after the code, in its namespace. "" when the code does more with its row than read
    these columns by name, or cannot be read.
    """
    try:
        tree = ast.parse(code)
        functions = [node for node in tree.body if _is_labeling_function(node)]
        if len(functions) != 1 or any(_is_ours(name) for name in _names_in(tree)) or not columns:
            return ""
        return _rewritten(functions[0], columns)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""  # what is wrong with it is told when it is loaded


def _is_labeling_function(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == FUNCTION


def _is_ours(name: str) -> bool:
    return name.startswith("__")


def _names_in(tree: ast.AST) -> set[str]:
    """Every name that is read, bound or imported in it."""
    return {
        name
        for node in ast.walk(tree)
        for field in ("id", "arg", "name", "asname")
        if isinstance(name := getattr(node, field, None), str)
    }


def _rewritten(function: ast.stmt, columns: Collection[str]) -> str:
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - the caller's filter, for mypy
    given = function.args
    rows = [*given.posonlyargs, *given.args]
    others = (given.vararg, given.kwarg, *given.kwonlyargs, *given.defaults)
    if len(rows) != 1 or any(others) or function.decorator_list:
        return ""
    row = rows[0].arg
    variables = {name: f"__{number}" for number, name in enumerate(columns)}
    body = [_Columns(row, variables).visit(statement) for statement in function.body]
    if any(row in _names_in(statement) for statement in body):
        return ""  # used in another way, or the name stands for something else too
    vote, before = _expression(body), ""
    if vote is None:
        before = _function(ROW, list(variables.values()), body)
        called: list[ast.expr] = [ast.Name(variable, ast.Load()) for variable in variables.values()]
        vote = ast.Call(ast.Name(ROW, ast.Load()), called, [])
    given_names = ", ".join(variables.values())
    loop = f"def {DIRECT}({ROWS}):\n    return [{ast.unparse(vote)} for ({given_names},) in {ROWS}]"
    return f"{before}\n{loop}\n"


def _function(name: str, arguments: list[str], body: list[ast.stmt]) -> str:
    of = ast.arguments([], [ast.arg(argument) for argument in arguments], None, [], [], None, [])
    return ast.unparse(ast.FunctionDef(name, of, body, [], None, lineno=1))


def _expression(body: Sequence[ast.stmt]) -> ast.expr | None:
    """What a body returns as one expression; None if it holds more than `if` and `return`."""
    match body:
        case []:
            return ast.Constant(None)
        case [ast.Return(value=value), *_]:
            found = value or ast.Constant(None)
            # A name that one row binds would still be bound at the next.
            binds = any(isinstance(node, ast.NamedExpr) for node in ast.walk(found))
            return None if binds else found
        case [ast.If() as choice, *rest] if _returns(choice.body):
            test = _expression([ast.Return(choice.test)])
            then = _expression(choice.body)
            otherwise = _expression([*choice.orelse, *rest])
            if test and then and otherwise:
                return ast.IfExp(test, then, otherwise)
            return None
        case [ast.Pass() | ast.Expr(value=ast.Constant()), *rest]:
            return _expression(rest)
    return None


def _returns(body: Sequence[ast.stmt]) -> bool:
    """Whether control never leaves the body by its end."""
    match body[-1]:
        case ast.Return():
            return True
        case ast.If(body=then, orelse=[_, *_] as otherwise):
            return _returns(then) and _returns(otherwise)
    return False


class _Columns(ast.NodeTransformer):
    """Puts variables in place of the columns that are read by name."""

    def __init__(self, row: str, variables: dict[str, str]) -> None:
        self._row = row
        self._variables = variables

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        match node:
            case ast.Subscript(
                value=ast.Name(id=name), slice=ast.Constant(value=str(column)), ctx=ast.Load()
            ) if name == self._row and column in self._variables:
                return ast.Name(self._variables[column], ast.Load())
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get"),
                args=[ast.Constant(value=str(column))]
                | [ast.Constant(value=str(column)), ast.Constant()],
                keywords=[],
            ) if name == self._row and column in self._variables:
                return ast.Name(self._variables[column], ast.Load())
        return self.generic_visit(node)
