"""A labeling function rewritten to take its columns as arguments, so that no row needs a dict.

Building a dict for each row and looking its names up costs more than most functions do with what
they find. `row["stays"]` and `row.get("stays")` become plain arguments where that is all the code
does with its row. The rewriting is for speed alone: when any row fails, the function as it was
written runs again, so faults and their lines are its own.
"""

import ast
from collections.abc import Collection

FUNCTION = "labeling_function"
DIRECT = "__direct"  # the policy lets no name begin so


def direct(code: str, columns: Collection[str]) -> str:
    """The source of `__direct(one argument for each of columns)`, which votes as the code does.

    It runs after the code, in its namespace. "" when the code does more with its row than read
    these columns by name, or cannot be read.
    """
    try:
        tree = ast.parse(code)
        functions = [node for node in tree.body if _is_labeling_function(node)]
        if len(functions) != 1 or any(_is_reserved(node) for node in ast.walk(tree)):
            return ""
        return _rewritten(functions[0], columns)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""  # what is wrong with it is told when it is loaded


def _is_labeling_function(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == FUNCTION


def _is_reserved(node: ast.AST) -> bool:
    names = (getattr(node, name, None) for name in ("id", "arg", "name", "asname"))
    return any(isinstance(name, str) and name.startswith("__") for name in names)


def _rewritten(function: ast.stmt, columns: Collection[str]) -> str:
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - the caller's filter, for mypy
    given = function.args
    rows = [*given.posonlyargs, *given.args]
    others = (given.vararg, given.kwarg, *given.kwonlyargs, *given.defaults)
    if len(rows) != 1 or any(others) or function.decorator_list or not columns:
        return ""
    arguments = {name: f"__{number}" for number, name in enumerate(columns)}
    reader = _Columns(rows[0].arg, arguments)
    body = [reader.visit(statement) for statement in function.body]
    if any(_names(node, reader.row) for statement in body for node in ast.walk(statement)):
        return ""
    written = ast.FunctionDef(
        name=DIRECT,
        args=ast.arguments(
            posonlyargs=[],
            args=[ast.arg(argument) for argument in arguments.values()],
            kwonlyargs=[],
            kw_defaults=[],
            defaults=[],
        ),
        body=body,
        decorator_list=[],
        lineno=1,
    )
    return ast.unparse(written)


def _names(node: ast.AST, row: str) -> bool:
    """Whether the row is used in another way, or its name stands for something else too."""
    names = (getattr(node, name, None) for name in ("id", "arg", "name", "asname"))
    return row in names


class _Columns(ast.NodeTransformer):
    """Puts arguments in place of the columns that are read by name."""

    def __init__(self, row: str, arguments: dict[str, str]) -> None:
        self.row = row
        self._arguments = arguments

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        match node:
            case ast.Subscript(
                value=ast.Name(id=name), slice=ast.Constant(value=str(column)), ctx=ast.Load()
            ) if name == self.row and column in self._arguments:
                return ast.Name(self._arguments[column], ast.Load())
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="get"),
                args=[ast.Constant(value=str(column))]
                | [ast.Constant(value=str(column)), ast.Constant()],
                keywords=[],
            ) if name == self.row and column in self._arguments:
                return ast.Name(self._arguments[column], ast.Load())
        return self.generic_visit(node)
