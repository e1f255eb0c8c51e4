"""Approval in the admin: pending first, and only with the permission."""

import re

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from labeling.models import LabelingFunction
from tests.labeling.conftest import Devices

LIST = "/admin/labeling/labelingfunction/"


@pytest.fixture
def staff(db: None) -> User:
    user = User.objects.create_user("rea", password="a reviewer's own", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_labelingfunction"))
    return user


def shown(client: Client, lf_id: int) -> tuple[bytes, dict[str, str]]:
    """The page that asks whether to approve, and what its button sends."""
    said = {"action": "approve", "_selected_action": str(lf_id)}
    page = client.post(LIST, said, follow=True).content
    fields = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', page.decode())
    return page, dict(fields)


def approve(client: Client, lf_id: int) -> bytes:
    _, fields = shown(client, lf_id)
    return client.post(LIST, fields, follow=True).content


def test_what_waits_for_approval_is_listed_first(
    devices: Devices, client: Client, staff: User
) -> None:
    devices.approve(devices.custom("done")["lf_id"])
    devices.custom("waiting")
    devices.approve(devices.custom("also_done")["lf_id"])
    client.force_login(staff)
    page = client.get(LIST).content
    assert page.index(b"waiting") < min(page.index(b"also_done"), page.index(b">done<"))


def test_without_the_permission_the_action_does_nothing(
    devices: Devices, client: Client, staff: User
) -> None:
    lf_id = devices.custom("static")["lf_id"]
    client.force_login(staff)
    approve(client, lf_id)
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_with_the_permission_it_approves(devices: Devices, client: Client, staff: User) -> None:
    permission = Permission.objects.get(codename="approve_labelingfunction")
    staff.user_permissions.add(permission)
    lf_id = devices.custom("static")["lf_id"]
    client.force_login(staff)
    assert b"Static is approved and active" in approve(client, lf_id)
    lf = LabelingFunction.objects.get(lf_id=lf_id)
    assert (lf.is_active, lf.approved_by) == (True, staff)
    assert b"needs no approval" in approve(client, lf_id)


def test_what_is_approved_is_what_the_page_showed(
    devices: Devices, client: Client, staff: User
) -> None:
    permission = Permission.objects.get(codename="approve_labelingfunction")
    staff.user_permissions.add(permission)
    lf_id = devices.custom("static")["lf_id"]
    client.force_login(staff)
    page, fields = shown(client, lf_id)
    assert b"return STATIC if row[&#x27;n&#x27;] &gt; 1 else ABSTAIN" in page
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active
    changed = {"lf_config": {"code": devices.code("PHONE", "row['n'] > 2")}}
    devices.patch(f"labeling-functions/{lf_id}", changed)
    assert b"is not the one you saw" in client.post(LIST, fields, follow=True).content
    assert not LabelingFunction.objects.get(lf_id=lf_id).is_active


def test_a_function_cannot_be_edited_in_the_admin(
    devices: Devices, client: Client, staff: User
) -> None:
    staff.is_superuser = True
    staff.save()
    lf_id = devices.custom("static")["lf_id"]
    client.force_login(staff)
    assert client.get(f"{LIST}{lf_id}/change/").status_code == 200
    assert client.post(f"{LIST}{lf_id}/change/", {"name": "x"}).status_code == 403
    assert client.get(f"{LIST}add/").status_code == 403
