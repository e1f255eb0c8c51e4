"""Judge a query that a user wrote, and render it: text and values in, SQL that is safe to run out.

Three readings, each strict where the one before it could be fooled:

1. `_scan` splits the text by the server's own lexical rules. Comments fall away, `/*! */` and
   whatever those rules leave doubtful are refused, and every name before a parenthesis must be on
   the allow-list of functions.
2. sqlglot parses that same text. It must be one query, without a write, a lock or a command at
   any depth, and its strings must end where ours do.
3. The server runs exactly the text that was judged, in a READ ONLY transaction
   (`connections.query`). It is not generated back from sqlglot's tree: over real queries that
   renamed columns and changed operators.

Values never become part of the text by pasting. Jinja2 prints a marker for each; a marker becomes
a typed literal, or a piece of the string that it stands in; with the filter `identifier` it becomes
a quoted name, which the database must have. `:index_values` is filled in last, with a literal that
is never parsed.
"""

import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tippers.errors import CannotBeDone
from tippers.sql_functions import FUNCTIONS, SYNTAX

if TYPE_CHECKING:
    import jinja2
    import pyarrow as pa
    from sqlglot import exp

MAX_QUERY = 200_000
MAX_PARAMS = 100_000
MAX_RENDERED = 400_000
MAX_LOOP_S = 2.0
MAX_INLINE_VALUES = 10_000  # of an index; more are read from a temporary table


class SqlRefused(CannotBeDone):
    """The query is not one that may run; the sentence names the construct and what to write."""

    code = "sql_refused"

    def __init__(self, detail: str, *, field: str = "sql_query") -> None:
        super().__init__(detail, field=field)


@dataclass(frozen=True)
class IndexTable:
    """The values of an index as a temporary table that a query reads them from.

    The server then knows how many there are, and reads them once for any number of places.
    """

    name: str
    values: "pa.Array | pa.ChunkedArray"
    index_type: str | None

    @property
    def reference(self) -> str:
        """What stands in the parentheses of IN."""
        return f"SELECT v FROM pg_temp.{self.name}"  # noqa: S608 - the name is ours

    def copied(self) -> tuple["pa.Table", str, str | None]:
        """What to copy to the server: a column v, its type there, and what to cast it to if need be.

        Copied binary they are there in a third of the time that a list in a statement takes.
        """
        return _POSTGRESQL.copied(self.values, self.index_type)

    def inlined(self, text: str) -> str:
        """The query without the table, where none can be made."""
        rows = _POSTGRESQL.index_values(self.values, self.index_type)
        return text.replace(self.reference, rows)


def index_table(
    values: "pa.Array | pa.ChunkedArray", index_type: str | None, dialect: str
) -> IndexTable | None:
    """The table for values that are too many to stand in the query; None where they are not.

    `values` and `index_type` are those of `render`. MySQL has none: there a temporary table can
    be read in one place of a query only.
    """
    if dialect != "postgresql" or len(values) <= MAX_INLINE_VALUES:
        return None
    # No query can name it by chance, so that its reference is found again.
    return IndexTable(f"index_values_{secrets.token_hex(8)}", values, index_type)


def judge(sql: str, dialect: str, params: Mapping[str, Any] | None = None) -> None:
    """Refuse (SqlRefused) what `render` would, as far as it shows before all values are known.

    `dialect` is `postgresql` or `mysql`. A name that `params` lacks may still be given later.
    """
    try:
        rendered = _Template(params or {}, lenient=True).render(sql)
    except _UndecidedError:
        return
    _judged(rendered, dialect)


def render(
    sql: str,
    *,
    dialect: str,
    params: Mapping[str, Any] | None = None,
    index_values: "pa.Array | pa.ChunkedArray | None" = None,
    index_type: str | None = None,
    table: IndexTable | None = None,
    existing_names: Callable[[Collection[str]], Collection[str]] | None = None,
) -> str:
    """The query to run, with `params` and the values of the index in it. Raises SqlRefused.

    `index_values` fills `IN (:index_values)`: distinct, without nulls, with their Arrow type, an
    empty array giving an empty list. `index_type` is the database's own name of the type where
    Arrow has text for it (`uuid`, `macaddr`, `inet`; `source_type` in the metadata of the field).
    With `table` (`index_table` of the same values) the query reads them from there, and
    `connections.query.stream` must be given it too. `existing_names` answers which of the names
    given to it a schema, table, view or column has that may be read; it is asked once, if the
    filter `identifier` is used, and without it there are none.
    """
    rendered = _Template(params or {}, lenient=False).render(sql)
    _check_names(rendered, existing_names or (lambda _: ()))
    judged = _judged(rendered, dialect)
    if not judged.places:
        return judged.text
    if index_values is None:
        raise SqlRefused(
            "Only rules and features have :index_values; an index is what the values come from."
        )
    if table is not None:
        inside = table.reference
    else:
        inside = _WRITERS[dialect].index_values(index_values, index_type)
    text = judged.text
    for start, end in reversed(judged.places):
        text = text[:start] + inside + text[end:]
    return text


def _check_names(
    rendered: "_Rendered", existing_names: Callable[[Collection[str]], Collection[str]]
) -> None:
    names = [value for value in rendered.values.values() if isinstance(value, _Name)]
    if not names:
        return
    parts = {part for name in names for part in name.parts}
    if missing := sorted(parts.difference(existing_names(parts))):
        shown = ", ".join(repr(name[:60]) for name in missing[:5])
        raise SqlRefused(
            f"There is no schema, table, view or column {shown} that this connection may read; "
            "names are compared as they are spelt.",
            field="query_template_params",
        )


def literal(value: Any, dialect: str) -> str:
    """A value of ours (text, number, boolean, time, None) as it is written in SQL."""
    return _WRITERS[dialect].literal(value)


def quoted_name(name: str, dialect: str) -> str:
    """The name of a column as it is written in SQL, whatever characters it has."""
    quote = "`" if dialect == "mysql" else '"'
    return quote + name.replace(quote, quote * 2) + quote


# --- reading by the server's lexical rules ---------------------------------------------------


@dataclass(frozen=True)
class _Token:
    """A piece of the text. kind: word, string, name (quoted), or sign (a single character)."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def upper(self) -> str:
        """The word as the server compares it; empty for everything else."""
        return self.text.upper() if self.kind == "word" else ""


# One alternative for each kind of token; what none of them takes is refused. A word takes digits
# too: where a number ends is of no consequence here.
_LEXERS = {
    "postgresql": re.compile(
        r"""
        (?P<space>   [ \t\n\r\f\v]+ )
      | (?P<comment> --[^\n\r]* | /\* )
      | (?P<string>  [eE]'(?:[^'\\]|''|\\.)*' | [bBxXnN]?'(?:[^']|'')*' )
      | (?P<refused> [uU]&(?=['"]) | \$ )
      | (?P<name>    "(?:[^"]|"")+" )
      | (?P<word>    [A-Za-z0-9_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]* )
      | (?P<sign>    [-+*/<>=~!@\#%^&|?(),.;:\[\]] )
        """,
        re.VERBOSE | re.DOTALL,
    ),
    "mysql": re.compile(
        r"""
        (?P<space>   [ \t\n\r\f\v]+ )
      | (?P<comment> --(?=[\x00-\x20]|\Z)[^\n]* | \#[^\n]* | /\* )
      | (?P<refused> _[A-Za-z0-9]+(?=[ \t\n\r\f\v]*['"]) | @ | \\ )
      | (?P<string>  [bBxXnN]?'(?:[^'\\]|''|\\.)*' | "(?:[^"\\]|""|\\.)*" )
      | (?P<name>    `(?:[^`]|``)+` )
      | (?P<word>    [A-Za-z0-9_$\u0080-\U0010ffff]+ )
      | (?P<sign>    [-+*/<>=~!%^&|(),.;:] )
        """,
        re.VERBOSE | re.DOTALL,
    ),
}
_INSTEAD = {
    "U": "U&'...' strings are not supported; write the characters themselves.",
    "$": "The character $ is not supported: write a string as '...', and give values as {{ name }}.",
    "_": "Character set introducers are not supported; write the string alone.",
    "@": "Variables (@name, @@name) are not supported; give values as {{ name }}.",
    "\\": "A backslash can stand only within a string.",
}
_STARTS_EXECUTABLE = re.compile(r"/\*M?!")


def _scan(text: str, dialect: str) -> list[_Token]:
    """The tokens; SqlRefused for what is not certain to be read the same by the server."""
    lexer = _LEXERS[dialect]
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        match = lexer.match(text, position)
        kind = match.lastgroup if match else None
        if match is None or kind is None:
            raise SqlRefused(_unreadable(text, position))
        if kind == "refused":
            raise SqlRefused(_INSTEAD[match[0][0].upper()] + _line(text, position))
        if kind == "comment" and match[0] == "/*":
            position = _end_of_comment(text, position, nested=dialect == "postgresql")
            continue
        if kind not in {"space", "comment"}:
            token = _Token(kind, match[0], position)
            # PostgreSQL reads a string that goes on after a line break by the first one's rules.
            if kind == "string" and tokens and tokens[-1].kind == "string":
                raise SqlRefused(
                    "Two strings stand side by side; write || or concat() between them."
                    + _line(text, position)
                )
            tokens.append(token)
        position = match.end()
    return tokens


def _end_of_comment(text: str, start: int, *, nested: bool) -> int:
    if _STARTS_EXECUTABLE.match(text, start):
        raise SqlRefused(
            "MySQL runs what stands in /*! ... */ comments, so they are refused; leave it out."
            + _line(text, start)
        )
    depth, position = 1, start + 2
    while depth:
        mark = re.compile(r"\*/|/\*").search(text, position)
        if mark is None:
            raise SqlRefused("A comment /* is not closed." + _line(text, start))
        if mark[0] == "*/":
            depth -= 1
        elif nested:
            depth += 1
        position = mark.end()
    return position


def _unreadable(text: str, position: int) -> str:
    character = text[position]
    if character in "'\"`":
        return f"A {character} opens a string or name that is not closed.{_line(text, position)}"
    return f"The character {character!r} has no meaning here.{_line(text, position)}"


def _line(text: str, position: int) -> str:
    return f" (line {text.count(chr(10), 0, position) + 1})"


def _without_comments(text: str, tokens: list[_Token]) -> tuple[str, list[_Token]]:
    """The text with a blank for each comment, line breaks kept, and its tokens where they are."""
    pieces: list[str] = []
    moved: list[_Token] = []
    length = position = 0
    for token in tokens:
        gap = text[position : token.start]
        if gap.strip(" \t\n\r\f\v"):
            gap = " " + "\n" * gap.count("\n")
        pieces += [gap, token.text]
        moved.append(_Token(token.kind, token.text, length + len(gap)))
        length += len(gap) + len(token.text)
        position = token.end
    return "".join(pieces), moved


# --- judging ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """Text that may run, and where in it `:index_values` stands."""

    text: str
    places: list[tuple[int, int]]


def _judged(rendered: "_Rendered", dialect: str) -> _Judged:
    if len(rendered.text) > MAX_RENDERED:
        raise SqlRefused(f"The query is longer than {MAX_RENDERED:,} characters.")
    filled = rendered.filled(dialect)
    text, tokens = _without_comments(filled, _scan(filled, dialect))
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    if not tokens:
        raise SqlRefused("There is no query; write SELECT ... or WITH ... SELECT ...")
    if tokens[0].upper not in {"SELECT", "WITH"} and tokens[0].text != "(":
        raise SqlRefused(
            f"{tokens[0].text[:20]} does not begin a query; write SELECT ... or WITH ... SELECT ..."
        )
    text = text[: tokens[-1].end]
    _check_signs(text, tokens)
    places = _index_values_places(text, tokens)
    _check_tree(text, tokens, dialect)
    return _Judged(text, places)


_WRITES_FILES = {"OUTFILE", "DUMPFILE"}
MAX_BRACKETS = 4  # sqlglot's time doubles with each [ in another: 16 took 3.4 s


def _check_signs(text: str, tokens: list[_Token]) -> None:
    """What no parser is needed to see."""
    depth = 0
    for token in tokens:
        depth += {"[": 1, "]": -1}.get(token.text, 0)
        if depth > MAX_BRACKETS:
            raise SqlRefused(f"Arrays are nested too deeply.{_line(text, token.start)}")
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        after = following.upper if following else ""
        said = None
        if token.text == ";":
            said = "There are two statements; a query is one SELECT. Leave out the second"
        elif token.upper == "INTO" or token.upper in _WRITES_FILES:
            said = "INTO writes the result somewhere; a query only returns it. Leave it out"
        elif (token.upper, after) == ("LOCK", "IN") or (
            token.upper == "FOR" and after in {"UPDATE", "SHARE", "NO", "KEY"}
        ):
            said = "A query must not lock rows. Leave out FOR UPDATE, FOR SHARE or LOCK IN"
        elif (token.upper, after) == ("PROCEDURE", "ANALYSE"):
            said = "PROCEDURE is not supported. Leave it out"
        elif (token.upper, after) == ("NEXT", "VALUE"):
            said = "NEXT VALUE changes a sequence; a query may only read. Leave it out"
        if said:
            raise SqlRefused(f"{said}.{_line(text, token.start)}")


def _index_values_places(text: str, tokens: list[_Token]) -> list[tuple[int, int]]:
    places = []
    for number, token in enumerate(tokens):
        if token.text != "index_values" or tokens[number - 1].text != ":" or number == 0:
            continue
        before = [each.upper or each.text for each in tokens[max(0, number - 3) : number]]
        after = tokens[number + 1].text if number + 1 < len(tokens) else ""
        if before != ["IN", "(", ":"] or after != ")":
            raise SqlRefused(
                "Write :index_values as column IN (:index_values) or NOT IN (:index_values)."
                + _line(text, token.start)
            )
        places.append((tokens[number - 1].start, token.end))
    return places


def _check_tree(text: str, tokens: list[_Token], dialect: str) -> None:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ParseError, TokenError

    grammar = sqlglot.Dialect.get_or_raise({"postgresql": "postgres"}.get(dialect, dialect))
    try:
        read = grammar.tokenize(text)
        trees = grammar.parser().parse(read, text)
    except (ParseError, TokenError) as error:
        raise SqlRefused(_not_understood(error)) from None
    except RecursionError:
        raise SqlRefused("The query is nested too deeply to be checked.") from None
    ours = {(token.start, token.end) for token in tokens if token.kind in {"string", "name"}}
    quoted = [each for each in read if each.token_type in _quoted_types()]
    # MySQL's 0xFF is a number to us and a string to them; it has no quotes to disagree on.
    theirs = {(each.start, each.end + 1) for each in quoted if text[each.start] != "0"}
    if ours != theirs:
        raise SqlRefused(
            "It is not certain where a string in the query ends; write it as plain '...'."
        )
    if len(trees) != 1 or trees[0] is None:
        raise SqlRefused("There are two statements; a query is one SELECT.")
    tree = trees[0]
    if not isinstance(tree, exp.Query):
        raise SqlRefused(f"{_named(tree)} is not a query; write SELECT ... or WITH ... SELECT ...")
    for node in tree.walk():
        if (reason := _objection(node)) is not None:
            raise SqlRefused(reason)
    _check_functions(text, tokens, dialect, _alias_positions(tree))


def _quoted_types() -> set[Any]:
    from sqlglot.tokenizer_core import TokenType

    return {
        TokenType.STRING,
        TokenType.BYTE_STRING,
        TokenType.NATIONAL_STRING,
        TokenType.BIT_STRING,
        TokenType.HEX_STRING,
        TokenType.UNICODE_STRING,
        TokenType.RAW_STRING,
        TokenType.HEREDOC_STRING,
        TokenType.IDENTIFIER,
    }


def _not_understood(error: Exception) -> str:
    places = getattr(error, "errors", None)
    if not places:
        return "The query cannot be read as SQL; check its quotes and parentheses."
    first = places[0]
    near = f" near {first['highlight']!r}" if first.get("highlight") else ""
    said = first["description"].partition(" but got <")[0].rstrip(".")  # not sqlglot's own objects
    return f"The query cannot be read as SQL: {said}{near} (line {first['line']})"


def _objection(node: "exp.Expr") -> str | None:
    from sqlglot import exp

    writes = (exp.DML, exp.DDL, exp.Copy, exp.TruncateTable, exp.Drop, exp.Alter, exp.LoadData)
    if isinstance(node, writes):
        return f"{_named(node)} changes data; a query may only read. Write it as SELECT ..."
    if isinstance(node, exp.Into | exp.Lock):
        return "INTO and FOR UPDATE are refused; a query only reads and returns."
    commands = (exp.Command, exp.Set, exp.SetItem, exp.Transaction, exp.Commit, exp.Rollback)
    if isinstance(node, (*commands, exp.Use, exp.Kill, exp.Pragma, exp.Describe, exp.Show)):
        return f"{_named(node)} is a command and not part of a query."
    if isinstance(node, exp.Placeholder) and node.name != "index_values":
        shown = f":{node.name}" if node.name.strip("?") else "?"
        return f"The placeholder {shown} is not known; give values as {{{{ name }}}}."
    return None


def _named(node: "exp.Expr") -> str:
    """A statement as its writer would call it."""
    words = re.findall(r"[A-Z][a-z]*", type(node).__name__)
    name = " ".join(words).upper()
    return str(node.this).upper() if name == "COMMAND" else name


def _alias_positions(tree: "exp.Expr") -> set[int]:
    """Where names begin that have a list of column names in parentheses: WITH t(a, b) AS ..."""
    from sqlglot import exp

    return {
        int(alias.this.meta["start"])
        for alias in tree.find_all(exp.TableAlias)
        if alias.args.get("columns") and isinstance(alias.this, exp.Identifier)
    }


def _check_functions(text: str, tokens: list[_Token], dialect: str, aliases: set[int]) -> None:
    allowed, syntax = FUNCTIONS[dialect], SYNTAX[dialect]
    for number, (token, following) in enumerate(pairwise(tokens)):
        if following.text != "(" or token.kind not in {"word", "name"} or token.start in aliases:
            continue
        qualified = number > 1 and tokens[number - 1].text == "."
        if token.upper in syntax and not qualified:
            continue
        name = token.text if token.kind == "word" else token.text[1:-1]
        if token.kind == "word" or dialect == "mysql":
            name = name.lower()
        schema = tokens[number - 2].text.lower() if qualified else "pg_catalog"
        if name not in allowed or schema != "pg_catalog":
            shown = f"{tokens[number - 2].text}.{name}" if qualified else name
            raise SqlRefused(
                f"The function {shown} is not among those that a query may call: the usual "
                "functions that compute from their arguments, and none that reads files, waits, "
                f"connects or changes settings.{_line(text, token.start)}"
            )


# --- templates -------------------------------------------------------------------------------

_FILTERS = (
    "abs", "count", "d", "default", "first", "float", "int", "last", "length", "list", "lower",
    "max", "min", "sort", "string", "trim", "unique", "upper",
)  # fmt: skip


_IN_TIME = "in time"  # no template can name it


def _in_time(members: Iterable[Any]) -> Iterator[Any]:
    """The members of what a loop runs over, for as long as a loop may take."""
    end = time.monotonic() + MAX_LOOP_S
    for member in members:
        if time.monotonic() > end:
            raise ValueError(f"a loop takes longer than {MAX_LOOP_S:g} seconds")
        yield member


class _UndecidedError(Exception):
    pass


class _Unknown:
    """A value that is given later; stands for any when a query is judged before."""


MAX_NAME_PARTS = 3  # schema.table.column
MAX_NAME = 200  # of them all; PostgreSQL's have 63 bytes, MySQL's 64 characters


@dataclass(frozen=True)
class _Name:
    """The name of a table or column that a template prints, in its parts."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        raise ValueError("identifier makes a name and no text; it must be the last filter")

    def quoted(self, dialect: str) -> str:
        return ".".join(quoted_name(part, dialect) for part in self.parts)


@dataclass(frozen=True)
class _Rendered:
    """A template's output: SQL text with markers, and the value of each."""

    text: str
    values: dict[str, Any]

    def filled(self, dialect: str) -> str:
        """The text with each marker replaced by a literal, or by text within a string."""
        if not self.values:
            return self.text
        writer = _WRITERS[dialect]
        marker = re.compile("|".join(map(re.escape, self.values)))
        pieces: list[str] = []
        position = size = 0
        for token in _scan(self.text, dialect):
            if not marker.search(token.text):
                continue
            pieces.append(self.text[position : token.start])
            position = token.end
            values = [self.values[found] for found in marker.findall(token.text)]
            size += sum(MAX_NAME if isinstance(v, _Name) else len(str(v)) for v in values)
            if size > MAX_RENDERED:
                raise SqlRefused(f"The values make more than {MAX_RENDERED:,} characters.")
            if token.text in self.values and isinstance(values[0], _Name):
                pieces.append(values[0].quoted(dialect))
            elif any(isinstance(value, _Name) for value in values):
                raise SqlRefused(
                    "A name {{ ... | identifier }} stands by itself: not in quotes, and not beside "
                    f"a letter or digit.{_line(self.text, token.start)}"
                )
            elif token.kind == "string":
                parts = re.split(f"({marker.pattern})", token.text)
                parts[1::2] = [
                    writer.within(token.text, _text(self.values[m])) for m in parts[1::2]
                ]
                pieces += parts
            elif token.text in self.values and self.text[token.start - 1 : token.start] != ".":
                pieces.append(writer.literal(self.values[token.text]))
            else:
                raise SqlRefused(
                    "A value {{ ... }} can stand for a value or within a string '...', not as or "
                    f"in a name.{_line(self.text, token.start)}"
                )
        # Markers in comments go with their comments.
        return "".join(pieces) + self.text[position:]


class _Template:
    """Jinja2 without anything that could run long, grow large or reach out.

    Expressions, filters from a short list, `if`, and `for` that is not nested. No calls, no
    assignments, no macros: without them output and time are bounded by the text and the values.
    """

    def __init__(self, params: Mapping[str, Any], *, lenient: bool) -> None:
        self.params = params
        self.lenient = lenient
        self.values: dict[str, Any] = {}
        self.stem = f"value_{secrets.token_hex(8)}_"

    def render(self, text: str) -> _Rendered:
        """The output; _UndecidedError when lenient and the text depends on what is not known yet."""
        if len(text) > MAX_QUERY:
            raise SqlRefused(f"The query is longer than {MAX_QUERY:,} characters.")
        if not re.search(r"\{[{%#]", text):
            return _Rendered(text, {})
        import jinja2

        if len(repr(self.params)) > MAX_PARAMS:
            raise SqlRefused(
                f"The values are longer than {MAX_PARAMS:,} characters.",
                field="query_template_params",
            )
        try:
            environment = self._environment()
            tree = environment.parse(text)
            self._check(tree, in_loop=False)
            output = "".join(self._bounded(environment.from_string(tree)))
        except jinja2.TemplateSyntaxError as error:
            raise SqlRefused(f"The template: {error.message} (line {error.lineno})") from None
        except jinja2.UndefinedError as error:
            if self.lenient:
                raise _UndecidedError from None
            there = ", ".join(sorted(map(str, self.params))) or "nothing"
            raise SqlRefused(
                f"The template: {error.message}; query_template_params defines {there}.",
                field="query_template_params",
            ) from None
        except (RecursionError, SyntaxError, MemoryError):
            raise SqlRefused("The template is nested too deeply or too large.") from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise SqlRefused(f"The template cannot be rendered: {error}.") from None
        return _Rendered(output, self.values)

    def _environment(self) -> "jinja2.Environment":
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Bounded(ImmutableSandboxedEnvironment):
            intercepted_binops = frozenset({"*", "**", "%"})

            def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
                # 'x' * 10**9, 9**9**9 and '%999999999d' % 1 cost no text to write.
                if not all(
                    isinstance(side, int | float) and abs(side) < 1e9 for side in (left, right)
                ):
                    raise ValueError(f"{operator} is for numbers below a billion")
                if operator == "**" and abs(right) > 64:
                    raise ValueError("the exponent is above 64")
                return super().call_binop(context, operator, left, right)

        environment = Bounded(
            undefined=jinja2.ChainableUndefined if self.lenient else jinja2.StrictUndefined,
            finalize=self._marker,
            autoescape=False,  # this is SQL: the markers are its escaping
        )
        environment.globals.clear()
        environment.filters = {name: environment.filters[name] for name in _FILTERS}
        environment.filters[_IN_TIME] = _in_time
        environment.filters["identifier"] = self._name
        return environment

    def _name(self, value: Any) -> _Name:
        """The filter `identifier`."""
        import jinja2

        if isinstance(value, jinja2.Undefined):
            if not self.lenient:
                str(value)  # raises, naming it
            return _Name(("given_later",))
        parts = tuple(value.split(".")) if isinstance(value, str) else ()
        if not 1 <= len(parts) <= MAX_NAME_PARTS or not all(parts) or len(value) > MAX_NAME:
            raise SqlRefused(
                "identifier takes the name of a table or column, as schema.table if need be, not "
                f"{value!r:.80}.",
                field="query_template_params",
            )
        _refuse_nul(value)
        return _Name(parts)

    def _marker(self, value: Any) -> str:
        import jinja2

        if isinstance(value, jinja2.Undefined):
            if not self.lenient:
                str(value)  # raises, naming it
            value = _Unknown()
        marker = f"{self.stem}{len(self.values)}_"
        self.values[marker] = value
        return marker

    def _bounded(self, template: "jinja2.Template") -> Iterator[str]:
        size = 0
        for piece in template.generate(**{str(name): value for name, value in self.params.items()}):
            size += len(piece)
            if size > MAX_RENDERED:
                raise SqlRefused(f"The template renders more than {MAX_RENDERED:,} characters.")
            yield piece

    def _check(self, node: Any, *, in_loop: bool) -> None:
        from jinja2 import nodes

        refused = (
            nodes.Call, nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.CallBlock,
            nodes.FilterBlock, nodes.Block, nodes.Include, nodes.Import, nodes.FromImport,
            nodes.Extends, nodes.With, nodes.ScopedEvalContextModifier, nodes.EvalContextModifier,
        )  # fmt: skip
        is_loop = isinstance(node, nodes.For)
        if isinstance(node, refused) or (is_loop and (in_loop or node.recursive)):
            what = "a loop in a loop" if is_loop else type(node).__name__.lower()
            raise SqlRefused(
                f"Templates have {{{{ values }}}}, filters, if and for, but not {what} "
                f"(line {node.lineno})."
            )
        if is_loop:
            node.iter = nodes.Filter(node.iter, _IN_TIME, [], [], None, None, lineno=node.lineno)
        for child in node.iter_child_nodes():
            self._check(child, in_loop=in_loop or is_loop)


# --- writing values --------------------------------------------------------------------------


def _text(value: Any) -> str:
    """A value within a string."""
    match value:
        case _Unknown():
            return "0"
        case str() | int() | float() | Decimal():
            return str(value).lower() if isinstance(value, bool) else str(value)
        case datetime():
            return value.isoformat(sep=" ")
        case date():
            return value.isoformat()
    raise SqlRefused(
        f"Text, a number or a time can be written here, not {value!r:.40}.",
        field="query_template_params",
    )


class _Writer:
    """How a dialect spells values."""

    def literal(self, value: Any) -> str:
        """A value as SQL; a list as its members with commas."""
        match value:
            case None:
                return "NULL"
            case bool():
                return "TRUE" if value else "FALSE"
            case int() | Decimal() | float():
                text = str(value)
                if not re.fullmatch(r"-?[0-9.]+([eE][-+]?[0-9]+)?", text):
                    raise SqlRefused(
                        f"{text} cannot be written as a number.", field="query_template_params"
                    )
                # Bare, `a -{{ n }}` would become the comment --5.
                return f"({text})" if text.startswith("-") else text
            case list() | tuple():
                return ", ".join(self.literal(member) for member in value) or "NULL"
        return self.quoted(_text(value))

    def quoted(self, text: str) -> str:
        return f"'{self.within(chr(39), text)}'"

    def within(self, opening: str, text: str) -> str:
        """`text` as it must stand within a string that begins like `opening`."""
        raise NotImplementedError

    def index_values(self, values: "pa.Array | pa.ChunkedArray", type_name: str | None) -> str:
        """What stands in the parentheses of IN for these values."""
        raise NotImplementedError


def _distinct(values: "pa.Array | pa.ChunkedArray") -> "pa.Array":
    return _present(values).unique()


def _present(values: "pa.Array | pa.ChunkedArray") -> "pa.Array":
    """One array of what is not null."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no chunks, in some versions
        values = pa.concat_arrays(values.chunks) if values.chunks else pa.array([], values.type)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.drop_null()


def _refuse_nul(text: str) -> None:
    if "\0" in text:
        raise SqlRefused("A value contains the character NUL.", field="query_template_params")


class _PostgreSQL(_Writer):
    # Types that a result holds as text or float64 and that do not compare with those.
    OWN_TYPES = frozenset(
        {"uuid", "macaddr", "macaddr8", "inet", "cidr", "numeric", "oid", "bpchar", "timetz"}
    )

    # What the driver writes each type from; the others are sent as text.
    COPIED_TYPES = {
        "text": "string",
        "integer": "int32",
        "bigint": "int64",
        "real": "float32",
        "double precision": "float64",
        "boolean": "bool_",
        "date": "date32",
    }

    def within(self, opening: str, text: str) -> str:
        _refuse_nul(text)
        if opening[0] in "eE":
            text = text.replace("\\", "\\\\")
        return text.replace("'", "''")

    def index_values(self, values: "pa.Array | pa.ChunkedArray", type_name: str | None) -> str:
        import pyarrow as pa
        import pyarrow.compute as pc

        values = _distinct(values)
        name = type_name if type_name in self.OWN_TYPES else self.array_type(values.type)
        text = values.cast(pa.string())
        if not _is_number(values.type):
            text = pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), '"', '\\"')
            text = pc.binary_join_element_wise('"', text, '"', "")
        members = ",".join(text.to_pylist())
        return f"SELECT unnest({self.quoted('{' + members + '}')}::{name}[])"

    def copied(
        self, values: "pa.Array | pa.ChunkedArray", type_name: str | None
    ) -> tuple["pa.Table", str, str | None]:
        """See `IndexTable.copied`."""
        import pyarrow as pa

        values = _present(values)
        name = type_name if type_name in self.OWN_TYPES else self.array_type(values.type)
        sent = self.COPIED_TYPES.get(name)
        cast = None if sent else name
        column = values.cast(getattr(pa, sent or "string")())
        return pa.table({"v": column}), "text" if cast else name, cast

    def array_type(self, type_: "pa.DataType") -> str:
        import pyarrow as pa

        names = {
            pa.bool_(): "boolean",
            pa.uint64(): "numeric",
            pa.uint32(): "bigint",
            pa.int64(): "bigint",
            pa.float32(): "real",
            pa.float64(): "double precision",
            pa.string(): "text",
            pa.large_string(): "text",
            pa.date32(): "date",
        }
        if type_ in names:
            return names[type_]
        if pa.types.is_integer(type_):
            return "integer"
        if pa.types.is_timestamp(type_):
            return "timestamptz" if type_.tz else "timestamp"
        if pa.types.is_decimal(type_):
            return "numeric"
        if pa.types.is_time(type_):
            return "time"
        raise SqlRefused(f"Values of the type {type_} cannot be :index_values.")


class _MySQL(_Writer):
    def within(self, opening: str, text: str) -> str:
        _refuse_nul(text)
        quote = '"' if opening[0] == '"' else "'"
        return text.replace("\\", "\\\\").replace(quote, quote * 2)

    def index_values(self, values: "pa.Array | pa.ChunkedArray", type_name: str | None) -> str:
        import pyarrow as pa
        import pyarrow.compute as pc

        del type_name  # MySQL compares text with every type of its own
        values = _distinct(values)
        if pa.types.is_timestamp(values.type) and values.type.tz:
            values = values.cast(pa.timestamp(values.type.unit))  # the session is in UTC
        if pa.types.is_floating(values.type):
            values = values.filter(pc.is_finite(values))
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        if not len(values):
            return "SELECT NULL FROM DUAL WHERE 1 = 0"
        texts = values.cast(pa.string()).to_pylist()
        return ",".join(texts if _is_number(values.type) else map(self.quoted, texts))


def _is_number(type_: "pa.DataType") -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(is_kind(type_) for is_kind in kinds)


_POSTGRESQL = _PostgreSQL()
_WRITERS: dict[str, _Writer] = {"postgresql": _POSTGRESQL, "mysql": _MySQL()}
