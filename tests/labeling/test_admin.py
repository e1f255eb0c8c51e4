"""Review in the admin: pending first, read, tried and judged, and only with the permission."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.contrib.staticfiles import finders
from django.test import Client

from labeling.models import LabelingFunction
from tests.labeling.conftest import Devices

LIST = "/admin/labeling/labelingfunction/"
DRIFTING = (
    "import datetime\n\ndef labeling_function(row):\n"
    "    return {value} if datetime.datetime.now().microsecond % 2 else -1"
)


class Page(HTMLParser):
    """What a page shows as text, and what its review form sends with each of its buttons."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.markup = content.decode()
        self.text = ""
        self.fields: dict[str, str] = {}
        self.buttons: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(self.markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.tags.append((tag, said))
        name, value = said.get("name"), said.get("value") or ""
        if tag == "input" and said.get("type") == "hidden" and name:
            self.fields[name] = value
        if tag == "button" and name == "action":
            self.buttons.append(value)

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def code(self) -> str:
        """The first piece of highlighted text, without its line numbers."""
        block = re.search(r'<div class="source"><pre>(.*?)</pre>', self.markup, re.DOTALL)
        assert block is not None
        plain = re.sub(r'<span class="linenos">.*?</span>', "", block[1])
        return Page(plain.encode()).text


def signed_in(client: Client, *permissions: str, name: str = "rea") -> User:
    user = User.objects.create_user(name, password="a reviewer's own", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client.force_login(user)
    return user


@pytest.fixture
def reviewer(client: Client, db: None) -> User:
    """Rea, who may look and approve; `client` is signed in as she is."""
    return signed_in(client, "view_labelingfunction", "approve_labelingfunction")


def shown(client: Client, lf_id: int) -> Page:
    """The page of one function."""
    answer = client.get(f"{LIST}{lf_id}/change/")
    assert answer.status_code == 200
    return Page(answer.content)


def press(client: Client, page: Page, action: str, **typed: str) -> Page:
    """What comes of pressing one of the page's buttons."""
    assert action in page.buttons
    answer = client.post(LIST, page.fields | typed | {"action": action}, follow=True)
    assert answer.status_code == 200
    return Page(answer.content)


def chosen(client: Client, action: str, *lf_ids: int) -> Any:
    """What comes of an action of the list."""
    said = {"action": action, "_selected_action": list(map(str, lf_ids)), "index": "0"}
    return client.post(LIST, said, follow=True)


def test_what_waits_for_approval_is_listed_first_and_can_be_asked_for_alone(
    devices: Devices, client: Client, reviewer: User
) -> None:
    devices.approve(devices.custom("done")["lf_id"])
    waiting = devices.custom("waiting")["lf_id"]
    refused = devices.custom("refused")["lf_id"]
    press(client, shown(client, refused), "reject", reason="no")
    devices.approve(devices.custom("also_done")["lf_id"])
    names = re.findall(r'field-name"><a [^>]*>(\w+)</a>', client.get(LIST).content.decode())
    assert names[0] == "waiting"
    assert set(names) == {"waiting", "done", "refused", "also_done"}
    for state, name in (("waits for approval", "waiting"), ("rejected", "refused")):
        page = client.get(LIST, {"state": state}).content.decode()
        assert re.findall(r'field-name"><a [^>]*>(\w+)</a>', page) == [name]
    assert LabelingFunction.objects.get(lf_id=waiting).rejected_at is None


def test_without_the_permission_there_is_no_action_no_button_and_no_way_round(
    devices: Devices, client: Client
) -> None:
    lf = devices.custom("static")
    signed_in(client, "view_labelingfunction", name="vera")
    assert b'name="action"' not in client.get(LIST).content
    page = shown(client, lf["lf_id"])
    assert page.code.strip() == lf["lf_config"]["code"]
    assert page.buttons == []
    for action in ("approve", "reject", "try_out"):
        said = page.fields | {"action": action, "seen": "yes", "reason": "because"}
        assert client.post(LIST, said).status_code == 403
    assert devices.get(f"labeling-functions/{lf['lf_id']}") == lf


@pytest.mark.parametrize("role", ["viewer", "analyst", "reviewer"])
def test_who_is_not_staff_cannot_open_it(devices: Devices, client: Client, role: str) -> None:
    lf_id = devices.custom("static")["lf_id"]
    user = User.objects.create_user("somebody", password="a password of theirs")
    user.groups.add(Group.objects.get(name=role))
    client.force_login(user)
    for path in (LIST, f"{LIST}{lf_id}/change/", f"{LIST}{lf_id}/history/"):
        assert client.get(path).status_code == 302
    assert client.post(LIST, {"action": "approve", "_selected_action": lf_id}).status_code == 302
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_a_function_is_approved_from_its_own_page(
    devices: Devices, client: Client, reviewer: User
) -> None:
    lf_id = devices.custom("static")["lf_id"]
    said = press(client, shown(client, lf_id), "approve").text
    assert "Static is approved and active. Tried on 240 of 240 rows" in said
    lf = LabelingFunction.objects.get(lf_id=lf_id)
    assert (lf.is_active, lf.approved_by) == (True, reviewer)
    assert "needs no approval" in press(client, shown(client, lf_id), "approve").text


def test_actions_of_the_list_show_the_code_before_anything_is_done(
    devices: Devices, client: Client, reviewer: User
) -> None:
    lfs = [devices.custom(name) for name in ("first", "second")]
    for action in ("approve", "reject"):
        page = Page(chosen(client, action, *(lf["lf_id"] for lf in lfs)).content)
        assert page.markup.count('<div class="source">') == 2
        assert {lf["code_sha256"] for lf in lfs} <= set(page.fields.values())
    assert not LabelingFunction.objects.filter(is_active=True).exists()
    press(client, page, "approve")  # its form names the last of the two
    assert LabelingFunction.objects.filter(is_active=True).count() == 1


def test_too_many_at_once_are_refused(devices: Devices, client: Client, reviewer: User) -> None:
    first = devices.custom("static")["lf_id"]
    lf = LabelingFunction.objects.get(lf_id=first)
    for number in range(10):
        lf.pk, lf.name = None, f"copy {number}"
        lf.save()
    everyone = LabelingFunction.objects.values_list("lf_id", flat=True)
    answer = chosen(client, "try_out", *everyone)
    assert b"at most 10 at a time" in answer.content
    assert b"Tried on" not in answer.content


def test_what_is_judged_is_what_the_page_showed(
    devices: Devices, client: Client, reviewer: User
) -> None:
    lf_id = devices.custom("static")["lf_id"]
    page = shown(client, lf_id)
    assert "return STATIC if row['n'] > 1 else ABSTAIN" in page.code
    changed = {"lf_config": {"code": devices.code("PHONE", "row['n'] > 2")}}
    devices.patch(f"labeling-functions/{lf_id}", changed)
    for action in ("approve", "reject"):
        said = press(client, page, action, reason="because").text
        assert "is not the one you saw" in said
    lf = LabelingFunction.objects.get(lf_id=lf_id)
    assert (lf.is_active, lf.rejected_at) == (False, None)


def test_a_rejection_says_why_and_ends_with_an_edit_or_an_approval(
    devices: Devices, client: Client, reviewer: User
) -> None:
    lf_id = devices.custom("static")["lf_id"]
    path = f"labeling-functions/{lf_id}"
    devices.approve(lf_id)
    page = press(client, shown(client, lf_id), "reject")
    assert "Reason: This field is required." in page.text
    assert devices.get(path)["is_active"] is True
    press(client, page, "reject", reason="n is not what you think")
    refused = devices.get(path)
    assert refused["rejection_reason"] == "n is not what you think"
    assert (refused["rejected_by"], refused["approved_by"]) == ("rea", None)
    assert (refused["is_active"], refused["requires_approval"]) == (False, True)
    assert "must be approved" in devices.patch(path, {"is_active": True}, status=409)["detail"]
    assert "n is not what you think" in shown(client, lf_id).text

    assert devices.approve(lf_id)["rejection_reason"] is None
    press(client, shown(client, lf_id), "reject", reason="after all")
    edited = devices.patch(path, {"lf_config": {"code": devices.code("STATIC", "row['n'] > 3")}})
    assert (edited["rejection_reason"], edited["rejected_at"], edited["rejected_by"]) == (None,) * 3


def test_what_runs_no_code_is_neither_approved_nor_rejected(
    devices: Devices, client: Client, reviewer: User
) -> None:
    said = {
        "name": "t", "rule_id": devices.rule.r_id, "field": "n", "operator": ">", "value": 2,
        "label": devices.values["PHONE"],
    }  # fmt: skip
    lf_id = devices.post("labeling-functions/template", said)["lf_id"]
    page = shown(client, lf_id)
    assert '"operator": ">"' in page.code
    assert "runs no code" in press(client, page, "reject", reason="because").text
    assert "needs no approval" in press(client, page, "approve").text
    assert LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_nobody_approves_what_they_wrote_here_either(
    devices: Devices, client: Client, ana: User
) -> None:
    lf_id = devices.custom("own")["lf_id"]
    ana.is_staff = True
    ana.save()
    ana.user_permissions.add(Permission.objects.get(codename="approve_labelingfunction"))
    client.force_login(ana)
    assert "other than its author" in press(client, shown(client, lf_id), "approve").text
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_code_is_run_only_when_it_is_asked_for_and_the_page_shows_what_it_did(
    devices: Devices, client: Client, reviewer: User
) -> None:
    code = devices.code("STATIC", "4 / row['n'] > 1")
    body = {
        "name": "f", "rule_id": devices.rule.r_id, "code": code,
        "applicable_cv_ids": list(devices.values.values()),
    }  # fmt: skip
    lf_id = devices.post("labeling-functions", body)["lf_id"]
    page = shown(client, lf_id)
    assert "Tried on" not in page.text
    tried = press(client, page, "try_out")
    numbers = devices.rule.table(["n"]).column("n").to_pylist()
    assert "Tried on 240 of 240 rows" in tried.text
    cells = re.findall(r"<tr><th>(.*?)</th><td>(.*?)</td></tr>", tried.markup)
    said = dict(cells)
    assert said["STATIC"] == str(sum(0 < number < 4 for number in numbers))
    assert said["PHONE"] == "0"
    assert said["abstained"] == str(numbers.count(4))
    assert said["failed"] == str(numbers.count(0))
    assert (said["reads"], said["votes alike twice"]) == ("n", "yes")
    assert "(line 5)" in tried.text
    assert "ZeroDivisionError" in tried.text
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active
    assert "approve" in tried.buttons, "it is the approval page"


def test_votes_that_differ_are_shown_and_stop_an_approval(
    devices: Devices, client: Client, reviewer: User
) -> None:
    body = {
        "name": "drifting", "rule_id": devices.rule.r_id, "allowed_imports": ["datetime"],
        "code": DRIFTING.format(value=devices.values["PHONE"]),
        "applicable_cv_ids": [devices.values["PHONE"]],
    }  # fmt: skip
    lf_id = devices.post("labeling-functions", body)["lf_id"]
    page = press(client, shown(client, lf_id), "try_out")
    assert re.search(r"no: mac\d+ got", page.text)
    assert "does not always vote alike" in press(client, page, "approve").text
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_a_new_version_shows_what_changed(devices: Devices, client: Client, reviewer: User) -> None:
    first = devices.custom("static")
    config = {"code": devices.code("STATIC", "row['n'] > 3"), "allowed_imports": ["re"]}
    second = devices.post(f"labeling-functions/{first['lf_id']}/versions", {"lf_config": config})
    assert "Changes from" not in shown(client, first["lf_id"]).text
    page = shown(client, second["lf_id"])
    lines = page.text.splitlines()
    for line in (
        "-allowed_imports: []",
        "+allowed_imports: ['re']",
        "-    return STATIC if row['n'] > 1 else ABSTAIN",
        "+    return STATIC if row['n'] > 3 else ABSTAIN",
        " def labeling_function(row):",
    ):
        assert line in lines
    assert '<span class="gd">-allowed_imports' in page.markup
    assert "ana" in page.text


def test_every_act_is_in_the_history_whoever_did_it_and_where(
    devices: Devices, client: Client, reviewer: User
) -> None:
    lf = devices.custom("static")
    path = f"labeling-functions/{lf['lf_id']}"
    devices.patch(path, {"name": "habits", "lf_config": lf["lf_config"]})
    devices.approve(lf["lf_id"])
    devices.post(f"{path}/toggle", status=200)
    press(client, shown(client, lf["lf_id"]), "reject", reason="too eager")
    changed = {"lf_config": {"code": devices.code("STATIC", "row['n'] > 3")}}
    edited = devices.patch(path, changed)
    devices.post(f"{path}/versions", changed)
    rows = re.findall(
        r"<td>([^<]*)</td>\s*<td>([^<]*)</td>\s*</tr>",
        client.get(f"{LIST}{lf['lf_id']}/history/").content.decode(),
    )
    old, new = f"sha256={lf['code_sha256']}", f"sha256={edited['code_sha256']}"
    acts = [
        ("ana", f"version 1, {old}"),
        ("ana", "renamed from static to habits"),
        ("ada", f"approved {old}"),
        ("ana", "switched off"),
        ("rea", f"rejected {old}: too eager"),
        ("ana", f"edited, {new}"),
        ("ana", "replaced by version 2"),
    ]
    assert len(rows) == len(acts)
    for (user, said), (who, what) in zip(rows, acts, strict=True):
        assert (user, said[: len(what)]) == (who, what)


def test_marks_that_would_hide_code_from_a_reviewer_are_spelled_out(
    devices: Devices, client: Client, reviewer: User
) -> None:
    body = {
        "name": "odd", "rule_id": devices.rule.r_id, "applicable_cv_ids": [devices.values["PHONE"]],
        "code": "\n# \u202e nothing <b>here</b>\ndef labeling_function(row):\n    return -1",
    }  # fmt: skip
    page = shown(client, devices.post("labeling-functions", body)["lf_id"])
    assert page.code.splitlines()[:3] == [
        "",
        r"# \u202e nothing <b>here</b>",
        "def labeling_function(row):",
    ]
    assert "<b>here" not in page.markup


def test_the_page_needs_no_inline_style_and_every_token_has_one_in_the_sheet(
    devices: Devices, client: Client, reviewer: User
) -> None:
    lf = devices.custom("static")
    said = {"lf_config": {"code": '"""Why."""\n' + devices.code("STATIC", "row['n'] > 3.5")}}
    devices.post(f"labeling-functions/{lf['lf_id']}/versions", said)
    newest = LabelingFunction.objects.get(parent_lf=lf["lf_id"])
    sheet = finders.find("labeling/review.css")
    assert isinstance(sheet, str)
    styled = set(re.findall(r"\.source \.(\w+)", Path(sheet).read_text()))
    for page in (
        shown(client, newest.lf_id),
        Page(chosen(client, "approve", newest.lf_id).content),
    ):
        links = [said.get("href") or "" for tag, said in page.tags if tag == "link"]
        assert any(link.endswith("labeling/review.css") for link in links)
        assert [tag for tag, said in page.tags if "style" in said] == []
        blocks = re.findall(r'<div class="source">.*?</pre>', page.markup, re.DOTALL)
        used = set(re.findall(r'<span class="(\w+)"', "".join(blocks)))
        assert len(blocks) == 2
        assert used - styled <= {"n", "p"}, "names and brackets have no colour of their own"


def test_a_function_cannot_be_edited_in_the_admin(devices: Devices, client: Client) -> None:
    root = User.objects.create_superuser("root", password="may do everything")
    client.force_login(root)
    lf_id = devices.custom("static")["lf_id"]
    assert client.get(f"{LIST}{lf_id}/change/").status_code == 200
    assert client.post(f"{LIST}{lf_id}/change/", {"name": "x"}).status_code == 403
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{lf_id}/delete/", {"post": "yes"}).status_code == 403
    assert client.get(f"{LIST}424242/change/").status_code == 302
