"""The tree of spaces, read from the table `space` of the tippers database (`TIPPERS_DB_URL`).

The table belongs to others, so it may hold what no tree has: spaces that lie in each other, or in
one that does not exist. Both are NotPossibleNow, naming the ids, wherever the tree is walked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings

from connections import query
from tippers.errors import NotFound, NotPossibleNow, Unavailable

COLUMNS = "space_id, space_name, parent_space_id, building_room"
SHOWN_IDS = 20


@dataclass(frozen=True)
class Space:
    """A row of the table; `parent_space_id` is null for a root."""

    space_id: int
    space_name: str | None
    parent_space_id: int | None
    building_room: str | None


def database() -> query.Target:
    """The tippers database; Unavailable when none is set."""
    if not settings.TIPPERS_DB_URL:
        raise Unavailable("There is no sessions database: TIPPERS_DB_URL is not set.")
    return query.Target.from_url(settings.TIPPERS_DB_URL)


def listed(*, search: str, skip: int, limit: int) -> tuple[list[Space], int]:
    """Spaces whose name has `search` in it, whatever the case, and how many there are in all."""
    pattern = "%" + search.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
    where = "WHERE space_name ILIKE %s" if search else ""
    params: Sequence[object] = [pattern] if search else []
    found = _read(
        f"SELECT {COLUMNS} FROM space {where} ORDER BY space_id OFFSET %s LIMIT %s",  # noqa: S608 - only constants are put in
        [*params, skip, limit],
    )
    ((total,),) = query.fetch(database(), f"SELECT count(*) FROM space {where}", params)  # noqa: S608 - only constants are put in
    return found, total


def get(space_id: int) -> Space:
    """One space; NotFound when there is none with that id."""
    found = _read(f"SELECT {COLUMNS} FROM space WHERE space_id = %s", [space_id])  # noqa: S608 - only constants are put in
    if not found:
        raise NotFound(f"Space {space_id} does not exist.")
    return found[0]


def children(space_id: int) -> list[Space]:
    """The spaces directly below, by name."""
    get(space_id)
    return _read(
        f"SELECT {COLUMNS} FROM space WHERE parent_space_id = %s ORDER BY space_name, space_id",  # noqa: S608 - only constants are put in
        [space_id],
    )


def roots() -> list[Space]:
    """The spaces that lie in no other, by name."""
    return _read(
        f"SELECT {COLUMNS} FROM space WHERE parent_space_id IS NULL ORDER BY space_name, space_id",  # noqa: S608 - only constants are put in
        [],
    )


def ancestors(space_id: int) -> list[Space]:
    """The spaces above, from the root down to the parent."""
    # UNION drops a row that was there already, so a circle ends the recursion.
    found = _read(
        """
        WITH RECURSIVE above AS (
            SELECT space_id, space_name, parent_space_id, building_room
              FROM space WHERE space_id = %s
             UNION
            SELECT s.space_id, s.space_name, s.parent_space_id, s.building_room
              FROM space s JOIN above ON s.space_id = above.parent_space_id)
        SELECT space_id, space_name, parent_space_id, building_room FROM above
        """,
        [space_id],
    )
    by_id = {space.space_id: space for space in found}
    if space_id not in by_id:
        raise NotFound(f"Space {space_id} does not exist.")
    path = [by_id[space_id]]
    while (parent := path[-1].parent_space_id) is not None:
        if parent not in by_id:
            raise NotPossibleNow(
                f"Space {path[-1].space_id} lies in space {parent}, which does not exist."
            )
        if by_id[parent] in path:
            circle = [space.space_id for space in path[path.index(by_id[parent]) :]]
            raise NotPossibleNow(f"These spaces lie in each other: {_shown(circle)}.")
        path.append(by_id[parent])
    return path[:0:-1]


def subtree(space_id: int) -> list[Space]:
    """The space and all below it, at any depth, by name.

    Nothing below a space can lie in a circle unless the space itself does, which `ancestors` finds.
    """
    require_tree(space_id)
    return _read(
        f"WITH RECURSIVE {below(space_id)} SELECT {COLUMNS} FROM space "  # noqa: S608 - constants and an integer
        "WHERE space_id IN (SELECT space_id FROM below) ORDER BY space_name, space_id",
        [],
    )


def parents_below(root_space_id: int) -> dict[int, int | None]:
    """Each space of the root's subtree, the root among them, with the space that it lies in."""
    require_tree(root_space_id)
    sql = f"WITH RECURSIVE {below(root_space_id)} SELECT space_id, parent_space_id FROM below"  # noqa: S608 - an integer
    return dict(query.fetch(database(), sql))


def require_tree(root_space_id: int) -> None:
    """NotFound or NotPossibleNow when `below` of this space would find nothing, or never end."""
    ancestors(root_space_id)


def below(root_space_id: int) -> str:
    """The common table `below` (space_id, parent_space_id): the space and all below it."""
    return f"""
        below AS (
            SELECT space_id, parent_space_id FROM space WHERE space_id = {int(root_space_id)}
             UNION ALL
            SELECT s.space_id, s.parent_space_id
              FROM space s JOIN below ON s.parent_space_id = below.space_id)"""  # noqa: S608 - an integer


def _read(sql: str, params: Sequence[object]) -> list[Space]:
    return [Space(*row) for row in query.fetch(database(), sql, params)]


def _shown(ids: Sequence[int]) -> str:
    text = ", ".join(str(each) for each in ids[:SHOWN_IDS])
    return text + (f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else "")
