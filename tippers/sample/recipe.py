"""What an analyst would enter for one concept, as data: nothing here talks to anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Query:
    """A named SELECT; `columns` are what a feature promises to return."""

    name: str
    sql: str
    columns: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class Custom:
    """A labeling function in Python. `body` uses the concept values' names as constants."""

    name: str
    rule: str
    values: tuple[str, ...]
    body: str

    def code(self, ids: Mapping[str, int]) -> str:
        """The source as the API takes it, with the constants that this concept's values have."""
        constants = [f"{value} = {ids[value]}" for value in self.values]
        return "\n".join([*constants, "ABSTAIN = -1", "", "", self.body.strip(), ""])


@dataclass(frozen=True)
class Template:
    """A labeling function without code: `row[field] operator value` votes for `label`."""

    name: str
    rule: str
    field: str
    operator: str
    value: float | str
    label: str


@dataclass(frozen=True)
class Regex:
    """A labeling function without code: a match of `pattern` in `row[field]` votes for `label`."""

    name: str
    rule: str
    field: str
    pattern: str
    label: str


@dataclass(frozen=True)
class Recipe:
    """A concept from its values to its features; `values` are (name, description)."""

    concept: str
    description: str
    values: tuple[tuple[str, str], ...]
    index: Query
    rules: tuple[Query, ...]
    labeling_functions: tuple[Custom | Template | Regex, ...]
    features: tuple[Query, ...]
    snorkel: Mapping[str, object] = field(default_factory=dict)
    classifiers: Mapping[str, object] = field(default_factory=dict)
