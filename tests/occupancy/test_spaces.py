"""The tree of spaces over REST, whole and broken."""

import pytest
from rest_framework.test import APIClient

from tests.conftest import body
from tests.occupancy.conftest import (
    ATTIC,
    BUILDING,
    CAMPUS,
    FLOOR,
    OTHER_FLOOR,
    OTHER_ROOM,
    ROOM,
    SessionsDatabase,
)

pytestmark = pytest.mark.django_db


def ids(api: APIClient, path: str) -> list[int]:
    response = api.get(path)
    assert response.status_code == 200, response.content
    return [space["space_id"] for space in body(response)]


def test_a_space_has_the_reference_s_fields(api: APIClient, campus: SessionsDatabase) -> None:
    assert body(api.get(f"/spaces/{ROOM}")) == {
        "space_id": ROOM,
        "space_name": "space 1000",
        "parent_space_id": FLOOR,
        "building_room": "R-1000",
    }


def test_spaces_are_listed_by_part_of_their_name(api: APIClient, campus: SessionsDatabase) -> None:
    assert ids(api, "/spaces?search=SPACE%20100") == [FLOOR, ROOM, OTHER_ROOM]
    assert ids(api, "/spaces?search=cellar") == []
    # The wildcards of LIKE are letters like any other.
    assert ids(api, "/spaces?search=%25") == []
    assert ids(api, "/spaces?search=space_1") == []


def test_a_page_of_the_list_says_how_many_there_are(
    api: APIClient, campus: SessionsDatabase
) -> None:
    response = api.get("/spaces?skip=2&limit=3")
    assert [space["space_id"] for space in body(response)] == [FLOOR, OTHER_FLOOR, ROOM]
    assert response["X-Total-Count"] == "7"
    assert api.get("/spaces?limit=1001").status_code == 400


def test_the_tree_can_be_walked_down_and_up(api: APIClient, campus: SessionsDatabase) -> None:
    assert ids(api, "/spaces/roots") == [CAMPUS]
    assert ids(api, f"/spaces/{BUILDING}/children") == [FLOOR, OTHER_FLOOR]
    assert ids(api, f"/spaces/{ROOM}/children") == []
    # By name, and "space 101" comes after "space 1000" and "space 1001".
    assert ids(api, f"/spaces/{BUILDING}/subtree") == [
        BUILDING, FLOOR, ROOM, OTHER_ROOM, OTHER_FLOOR, ATTIC,
    ]  # fmt: skip
    assert ids(api, f"/spaces/{ROOM}/ancestors") == [CAMPUS, BUILDING, FLOOR]
    assert ids(api, f"/spaces/{CAMPUS}/ancestors") == []


@pytest.mark.parametrize("path", ["", "/children", "/subtree", "/ancestors"])
def test_an_unknown_space_is_not_found(api: APIClient, campus: SessionsDatabase, path: str) -> None:
    response = api.get(f"/spaces/77{path}")
    assert response.status_code == 404
    assert body(response) == {"detail": "Space 77 does not exist.", "code": "not_found"}


def test_spaces_in_a_circle_are_named(api: APIClient, campus: SessionsDatabase) -> None:
    campus.add_spaces({7: 9, 8: 7, 9: 8, 70: 7})
    for path in ("/spaces/7/subtree", "/spaces/8/ancestors", "/spaces/70/ancestors"):
        response = api.get(path)
        assert response.status_code == 409
        assert body(response)["code"] == "conflict"
        assert all(str(each) in body(response)["detail"] for each in (7, 8, 9))
    assert ids(api, f"/spaces/{CAMPUS}/subtree")[0] == CAMPUS


def test_a_space_in_a_space_that_is_missing_is_named(
    api: APIClient, campus: SessionsDatabase
) -> None:
    campus.add_spaces({7: 999, 70: 7})
    for path in ("/spaces/70/ancestors", "/spaces/7/subtree"):
        response = api.get(path)
        assert response.status_code == 409
        assert body(response)["detail"] == "Space 7 lies in space 999, which does not exist."


def test_a_search_that_no_database_takes_names_the_field(
    api: APIClient, campus: SessionsDatabase
) -> None:
    response = api.get("/spaces?search=%00")
    assert response.status_code == 400
    assert "search" in body(response)["errors"]


@pytest.mark.parametrize("path", ["/spaces", f"/spaces/{ROOM}", f"/spaces/{ROOM}/subtree"])
def test_spaces_are_read_only(api: APIClient, campus: SessionsDatabase, path: str) -> None:
    for send in (api.post, api.put, api.patch, api.delete):
        assert send(path, {}).status_code == 405
    assert api.options(path).status_code == 200
    page = api.get(path, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert b"space 1000" in page.content


def test_spaces_are_for_people_who_signed_in(
    stranger: APIClient, viewer: APIClient, campus: SessionsDatabase
) -> None:
    assert stranger.get("/spaces").status_code == 401
    assert viewer.get("/spaces").status_code == 200
