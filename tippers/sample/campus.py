"""A simulated campus: who was where, what their devices did, and the Wi-Fi sessions that remain.

The sessions are what an analyst would have. `Truth` is what only a simulation knows; it is kept
apart and serves to measure how well the pipelines did, never to make a label.

The order of things: people are given places and days, days become stays in rooms, stays become
sessions of the devices that people carry, and what stands in a room for itself (screens, sensors,
access-point clients of every kind) adds its own. Then come the faults that real data has: sessions
heard by another room's access point, and devices that were there for half of the time only.

All times are seconds since `FIRST_DAY`; the campus clock is UTC. Everything is drawn from one
generator, so equal options give equal tables.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

FIRST_DAY = datetime(2025, 9, 1)  # noqa: DTZ001 - a Monday; session times carry no zone, they are UTC
DAY = 86_400
HOUR = 3_600
DEVICE_TYPES = ("STATIC", "LAPTOP", "PHONE")
STATIC, LAPTOP, PHONE = range(3)

SPACES_FILE = "space.csv"
SESSIONS_FILE = "user_ap_trajectory.parquet"
TRUE_TYPES_FILE = "truth/device_types.parquet"
TRUE_PEOPLE_FILE = "truth/people.parquet"

BUILDINGS = ("Library", "Engineering Hall", "Science Hall", "Arts Centre", "Student Union")
RESIDENCE = "Residence"
ROOMS_PER_FLOOR = 10
FLOORS_PER_BUILDING = 3

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Truth:
    """What really happened. `device_types`: mac_address, device_type (one of DEVICE_TYPES).

    `people`: space_id (a room), interval_begin_time (hour, UTC), people (distinct persons there).
    """

    device_types: pa.Table
    people: pa.Table


@dataclass(frozen=True)
class Campus:
    """`spaces` and `sessions` in the columns that `load_sessions` reads, and the hidden truth."""

    spaces: pa.Table
    sessions: pa.Table
    truth: Truth


@dataclass(frozen=True)
class _Rooms:
    """Rooms are counted from 0; `space_id`, `floor` and `building` are parallel to that count."""

    space_id: Ints
    floor: Ints
    floor_space_id: Ints
    building: Ints
    residential: Bools
    corridor_ap: Bools  # per floor: it has an access point of its own, outside any room


@dataclass(frozen=True)
class _Devices:
    """Per device its type and its owner: a person, or -1 for what stands in a room."""

    kind: Ints
    owner: Ints


@dataclass(frozen=True)
class _Sessions:
    device: Ints
    space_id: Ints
    start: Floats
    end: Floats


@dataclass(frozen=True)
class _Stays:
    """A person in a room, from `start` to `end`. `rank` is 0 for the person's own desk or bed."""

    person: Ints
    room: Ints
    rank: Ints
    start: Floats
    end: Floats
    overnight: Bools


@dataclass(frozen=True)
class _People:
    """Per person; `places` is (people, 12): the rooms each one uses, the most used first."""

    staff: Bools
    resident: Bools
    visitor: Bools
    places: Ints
    bed: Ints
    arrival: Floats
    hours: Floats
    weekday_presence: Floats
    weekend_presence: Floats
    first_day: Ints
    last_day: Ints


def simulate(*, devices: int = 2_000, rooms: int = 120, days: int = 90, seed: int = 7) -> Campus:
    """A campus of that many devices and rooms, watched for that many days from FIRST_DAY on.

    About 350 sessions per device in 90 days; the few devices that never connect (a visitor's
    laptop that stayed in the bag) are in no table. At least 50 devices, 10 rooms and 14 days,
    below which absences, weekends and roaming have no room: ValueError.
    """
    if devices < 50 or rooms < 10 or days < 14:
        raise ValueError("a campus needs at least 50 devices, 10 rooms and 14 days")
    rng = np.random.default_rng(seed)
    spaces, places = _build_spaces(rng, rooms)
    things = _give_out_devices(rng, devices)
    people = _draw_people(rng, int(things.owner.max()) + 1, places, days)
    stays = _stays(rng, people, places, days)
    parts = [
        _phone_sessions(rng, stays, places, things),
        _laptop_sessions(rng, stays, places, things, people),
        _static_sessions(rng, places, np.flatnonzero(things.kind == STATIC), days),
    ]
    sessions = _with_faults(rng, _joined(parts), places, devices, days)
    addresses = _addresses(rng, devices)
    seen = np.unique(sessions.device)
    return Campus(
        spaces=spaces,
        sessions=_session_table(rng, sessions, addresses),
        truth=Truth(
            device_types=pa.table(
                {
                    "mac_address": addresses.take(pa.array(seen)),
                    "device_type": pa.array(np.array(DEVICE_TYPES)[things.kind[seen]]),
                }
            ),
            people=_people_per_hour(stays, places, days),
        ),
    )


def write(campus: Campus, folder: Path) -> None:
    """The campus as the files that `load_sessions` reads, and the truth in a folder of its own."""
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    pa_csv.write_csv(campus.spaces, folder / SPACES_FILE)
    pq.write_table(campus.sessions, folder / SESSIONS_FILE)
    pq.write_table(campus.truth.device_types, folder / TRUE_TYPES_FILE)
    pq.write_table(campus.truth.people, folder / TRUE_PEOPLE_FILE)


def read_truth(folder: Path) -> Truth | None:
    """The truth beside the sessions of `folder`; None where there is none, as with real data."""
    if not (folder / TRUE_TYPES_FILE).exists():
        return None
    return Truth(
        device_types=pq.read_table(folder / TRUE_TYPES_FILE),
        people=pq.read_table(folder / TRUE_PEOPLE_FILE),
    )


def _build_spaces(rng: np.random.Generator, rooms: int) -> tuple[pa.Table, _Rooms]:
    """The tree campus > building > floor > room. The last building is where people live."""
    floor = np.arange(rooms) // ROOMS_PER_FLOOR
    floors = int(floor[-1]) + 1
    building_of_floor = np.arange(floors) // FLOORS_PER_BUILDING
    buildings = int(building_of_floor[-1]) + 1
    names = [BUILDINGS[b % len(BUILDINGS)] for b in range(buildings)]
    names = [f"{name} {b // len(BUILDINGS) + 1}" if b >= len(BUILDINGS) else name
             for b, name in enumerate(names)]  # fmt: skip
    if buildings > 1:
        names[-1] = RESIDENCE
    codes = [f"B{b + 1}" for b in range(buildings)]

    rows: list[tuple[int, str, int | None, str]] = [(1, "Campus", None, "CAMPUS")]
    rows += [(2 + b, names[b], 1, codes[b]) for b in range(buildings)]
    first_floor_id = 2 + buildings
    for f in range(floors):
        b, level = int(building_of_floor[f]), f % FLOORS_PER_BUILDING + 1
        rows.append((first_floor_id + f, f"{names[b]} floor {level}", 2 + b, f"{codes[b]}-{level}"))
    first_room_id = first_floor_id + floors
    for r in range(rooms):
        f = int(floor[r])
        b, level = int(building_of_floor[f]), f % FLOORS_PER_BUILDING + 1
        number = f"{level}{r % ROOMS_PER_FLOOR + 1:02d}"
        rows.append(
            (first_room_id + r, f"{names[b]} {number}", first_floor_id + f, f"{codes[b]}-{number}")
        )
    table = pa.table(
        {
            "space_id": pa.array([row[0] for row in rows], pa.int32()),
            "space_name": [row[1] for row in rows],
            "parent_space_id": pa.array([row[2] for row in rows], pa.int32()),
            "building_room": [row[3] for row in rows],
        }
    )
    building = building_of_floor[floor]
    corridor_ap = rng.random(floors) < 0.4
    corridor_ap[0] = True
    return table, _Rooms(
        space_id=first_room_id + np.arange(rooms),
        floor=floor,
        floor_space_id=first_floor_id + floor,
        building=building,
        residential=(building == buildings - 1) & (buildings > 1),
        corridor_ap=corridor_ap,
    )


def _give_out_devices(rng: np.random.Generator, devices: int) -> _Devices:
    """People carry one device (a phone, seldom a laptop alone), two (phone and laptop, seldom two
    phones) or three.
    """
    static = round(devices * 0.2)
    carried: list[tuple[int, ...]] = [
        (PHONE,), (LAPTOP,), (PHONE, LAPTOP), (PHONE, PHONE),
        (PHONE, PHONE, LAPTOP), (PHONE, LAPTOP, LAPTOP),
    ]  # fmt: skip
    picks = rng.choice(len(carried), size=devices, p=[0.33, 0.05, 0.42, 0.05, 0.09, 0.06])
    bags = [carried[pick] for pick in picks]
    owner = np.repeat(np.arange(devices), [len(bag) for bag in bags])[: devices - static]
    kind = np.concatenate([np.array(bag) for bag in bags])[: devices - static]
    kind = np.concatenate([kind, np.full(static, STATIC)])
    owner = np.concatenate([owner, np.full(static, -1)])
    order = rng.permutation(devices)
    return _Devices(kind[order].astype(np.int64), owner[order].astype(np.int64))


def _draw_people(rng: np.random.Generator, count: int, rooms: _Rooms, days: int) -> _People:
    """Staff (a desk), students (lecture rooms), residents (a bed as well), visitors (a day or so)."""
    role = rng.choice(4, size=count, p=[0.27, 0.52, 0.13, 0.08])
    staff, resident, visitor = role == 0, role == 2, role == 3
    work_rooms = np.flatnonzero(~rooms.residential)
    beds = np.flatnonzero(rooms.residential)
    if beds.size == 0:
        beds = work_rooms
    places = rng.choice(work_rooms, size=(count, 12))
    # Most of what somebody uses lies in one building; the rest anywhere.
    near = rooms.building[places] == rooms.building[places[:, :1]]
    again = rng.choice(work_rooms, size=(count, 12))
    places = np.where(near | (rng.random((count, 12)) < 0.6), places, again)

    first_day, last_day = np.zeros(count, np.int64), np.full(count, days, np.int64)
    half = rng.random(count)
    half_way = days // 2
    first_day[half < 0.1] = half_way
    last_day[(half >= 0.1) & (half < 0.2)] = half_way
    came = rng.integers(0, days - 2, count)
    first_day[visitor] = came[visitor]
    last_day[visitor] = came[visitor] + rng.integers(1, 3, count)[visitor]

    weekday = np.clip(rng.normal(np.where(staff, 0.88, 0.72), 0.12), 0.2, 1.0)
    weekend = np.clip(rng.gamma(1.0, np.where(staff, 0.03, 0.12)), 0.0, 0.9)
    weekday[resident], weekend[resident] = 0.92, 0.85
    weekday[visitor], weekend[visitor] = 1.0, 1.0
    return _People(
        staff=staff,
        resident=resident,
        visitor=visitor,
        places=places,
        bed=rng.choice(beds, size=count),
        arrival=np.clip(rng.normal(np.where(staff, 8.6, 9.6), 0.9), 6.5, 13.0),
        hours=np.clip(rng.normal(np.where(staff, 8.2, 6.8), 1.4), 2.0, 12.0),
        weekday_presence=weekday,
        weekend_presence=weekend,
        first_day=first_day,
        last_day=last_day,
    )


def _stays(rng: np.random.Generator, people: _People, rooms: _Rooms, days: int) -> _Stays:
    """Every stay of every person: a row of rooms from arrival to leaving, and nights in bed."""
    day = np.arange(days)
    weekend = day % 7 >= 5
    chance = np.where(weekend, people.weekend_presence[:, None], people.weekday_presence[:, None])
    here = (rng.random(chance.shape) < chance) & (day >= people.first_day[:, None])
    here &= day < people.last_day[:, None]
    person, on = np.nonzero(here)
    count = person.size

    arrival = on * DAY + HOUR * np.clip(people.arrival[person] + rng.normal(0, 0.6, count), 5.5, 15)
    length = HOUR * np.clip(people.hours[person] + rng.normal(0, 1.3, count), 0.6, 13.0)
    leaving = arrival + length

    most = 14
    desk = rng.random((count, most)) < np.where(people.staff[person], 0.55, 0.18)[:, None]
    minutes = np.where(
        desk,
        rng.lognormal(np.log(95), 0.55, (count, most)),
        rng.lognormal(np.log(48), 0.75, (count, most)),
    )
    minutes = np.clip(minutes, 3, 300)
    walk = rng.uniform(2, 12, (count, most))
    ends = arrival[:, None] + 60 * np.cumsum(minutes + walk, axis=1) - 60 * walk
    starts = ends - 60 * minutes
    # A few rooms are used much, the others seldom: rank falls off like 1 / (rank + 1).
    weights = 1 / np.arange(1, 12)
    rank = 1 + rng.choice(11, size=(count, most), p=weights / weights.sum())
    rank = np.where(desk, 0, rank)
    room = people.places[person[:, None], rank]
    anywhere = rng.random((count, most)) < 0.06
    room = np.where(anywhere, rng.integers(0, rooms.space_id.size, (count, most)), room)
    rank = np.where(anywhere, 99, rank)
    row, column = np.nonzero(starts < leaving[:, None])

    sleeps = np.flatnonzero(people.resident[person] & (rng.random(count) < 0.93))
    to_bed = np.maximum(
        leaving[sleeps] + HOUR, on[sleeps] * DAY + HOUR * rng.normal(22.6, 0.9, sleeps.size)
    )
    up = (on[sleeps] + 1) * DAY + HOUR * np.clip(rng.normal(7.6, 0.7, sleeps.size), 5, 10)
    up = np.maximum(up, to_bed + HOUR)

    horizon = float(days * DAY)
    start = np.concatenate([starts[row, column], to_bed])
    end = np.minimum(np.concatenate([np.minimum(ends, leaving[:, None])[row, column], up]), horizon)
    keep = (start < horizon) & (end > start)
    return _Stays(
        person=np.concatenate([person[row], person[sleeps]])[keep],
        room=np.concatenate([room[row, column], people.bed[person[sleeps]]])[keep],
        rank=np.concatenate([rank[row, column], np.zeros(sleeps.size, np.int64)])[keep],
        start=start[keep],
        end=end[keep],
        overnight=np.concatenate([np.zeros(row.size, bool), np.ones(sleeps.size, bool)])[keep],
    )


def _carried(things: _Devices, wanted: int, stays: _Stays) -> tuple[Ints, Ints]:
    """Pairs (stay, device): every stay of a person once for each device of that kind they own."""
    devices = np.flatnonzero(things.kind == wanted)
    by_owner = devices[np.argsort(things.owner[devices], kind="stable")]
    owners = things.owner[by_owner]
    first = np.searchsorted(owners, stays.person, side="left")
    many = np.searchsorted(owners, stays.person, side="right") - first
    stay = np.repeat(np.arange(stays.person.size), many)
    within = np.arange(stay.size) - np.repeat(np.cumsum(many) - many, many)
    return stay, by_owner[np.repeat(first, many) + within]


def _phone_sessions(
    rng: np.random.Generator, stays: _Stays, rooms: _Rooms, things: _Devices
) -> _Sessions:
    """A phone connects when its owner enters, sleeps in the pocket, and wakes now and then."""
    count = things.kind.size
    stay, device = _carried(things, PHONE, stays)
    habit = np.clip(rng.beta(6, 2, count), 0.25, 1.0)  # some leave Wi-Fi off, or the phone
    used = rng.random(stay.size) < habit[device]
    stay, device = stay[used], device[used]
    hours = (stays.end[stay] - stays.start[stay]) / HOUR
    chatty = rng.gamma(4, 0.2, count)
    many = 1 + np.minimum(
        rng.poisson(hours * chatty[device] * np.where(stays.overnight[stay], 0.2, 1)), 4
    )
    stay, device = np.repeat(stay, many), np.repeat(device, many)
    entering = np.concatenate([[True], stay[1:] != stay[:-1]]) if stay.size else np.zeros(0, bool)

    begin, end = stays.start[stay], stays.end[stay]
    start = np.where(
        entering, begin + rng.uniform(0, 120, stay.size), rng.uniform(begin, end, stay.size)
    )
    # One phone in eight plays music or sits on a charger: it stays connected as a laptop would.
    streaming = rng.random(count) < 0.12
    whole = rng.random(stay.size) < np.where(streaming[device], 0.45, 0.04)
    whole |= stays.overnight[stay] & (rng.random(stay.size) < 0.5)
    lasts = np.where(whole, end - begin, 60 * rng.lognormal(np.log(6), 0.9, stay.size))
    stop = np.minimum(start + lasts, end)
    inside = _Sessions(device, rooms.space_id[stays.room[stay]], start, stop)

    passing = (
        entering & (rng.random(stay.size) < 0.3) & rooms.corridor_ap[rooms.floor[stays.room[stay]]]
    )
    walk = rng.uniform(20, 200, stay.size)
    corridor = _Sessions(
        device[passing],
        rooms.floor_space_id[stays.room[stay]][passing],
        (begin - walk)[passing],
        (begin + rng.uniform(5, 60, stay.size))[passing],
    )
    return _joined([inside, corridor])


def _laptop_sessions(
    rng: np.random.Generator,
    stays: _Stays,
    rooms: _Rooms,
    things: _Devices,
    people: _People,
) -> _Sessions:
    """A laptop is opened where its owner sits down: few rooms, long sessions, working hours."""
    count = things.kind.size
    stay, device = _carried(things, LAPTOP, stays)
    favourites = rng.integers(1, 5, count)
    habit = np.clip(rng.beta(4, 2.2, count), 0.15, 1.0)
    seconds = stays.end[stay] - stays.start[stay]
    used = (stays.rank[stay] < favourites[device]) & (seconds > 25 * 60)
    chance = habit[device] * np.where(stays.overnight[stay], 0.35, 1.0)
    used &= rng.random(stay.size) < chance
    stay, device = stay[used], device[used]
    start = stays.start[stay] + rng.uniform(60, 600, stay.size)
    # In bed it is closed after an hour or two, or left to run through the night.
    left_on = rng.random(stay.size) < 0.3
    in_bed = stays.overnight[stay] & ~left_on
    stop = stays.end[stay] - rng.uniform(0, 300, stay.size)
    stop = np.where(in_bed, np.minimum(start + HOUR * rng.uniform(0.3, 2, stay.size), stop), stop)
    stop = np.maximum(stop, start + 300)
    # The lid closes for a break: two sessions; some laptops sleep after minutes, all day long.
    sleepy = rng.random(count) < 0.1
    pieces = 1 + rng.binomial(2, 0.2, stay.size)
    pieces = np.where(sleepy[device], pieces + rng.poisson(3, stay.size), pieces)
    whole = np.repeat(np.arange(stay.size), pieces)
    part = np.arange(whole.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    slot = (stop - start)[whole] / pieces[whole]
    begin = start[whole] + part * slot
    close = begin + slot * rng.uniform(0.72, 0.98, whole.size)
    seat = _Sessions(device[whole], rooms.space_id[stays.room[stay]][whole], begin, close)

    # Docked ones are left running overnight on the desk and look like something that lives there.
    docked = np.flatnonzero((things.kind == LAPTOP) & (rng.random(count) < 0.12))
    night, which = np.nonzero(rng.random((int(people.last_day.max()) - 1, docked.size)) < 0.3)
    who = things.owner[docked[which]]
    there = (night >= people.first_day[who]) & (night < people.last_day[who])
    night, which, who = night[there], which[there], who[there]
    evening = night * DAY + HOUR * rng.uniform(17, 20, night.size)
    morning = (night + 1) * DAY + HOUR * rng.uniform(6.5, 9, night.size)
    desk = _Sessions(docked[which], rooms.space_id[people.places[who, 0]], evening, morning)
    return _joined([seat, desk])


def _static_sessions(
    rng: np.random.Generator, rooms: _Rooms, devices: Ints, days: int
) -> _Sessions:
    """What stands in a room: always on, or waking at odd times, or switched on for working hours."""
    count = devices.size
    manner = rng.choice(3, size=count, p=[0.5, 0.43, 0.07])
    always_on, office = manner == 0, manner == 2
    on = np.where(always_on, 7.0, np.where(office, 3.0, 0.1)) * HOUR
    off = np.where(always_on, 0.06, np.where(office, 0.3, 3.5)) * HOUR
    on = on * rng.lognormal(0, 0.5, count)
    off = off * rng.lognormal(0, 0.5, count)
    horizon = days * DAY
    # The longest row decides: a margin over the mean count, since lengths scatter.
    most = int(np.max(horizon / (on + off)) * 1.35) + 30
    lengths = on[:, None] * rng.lognormal(-0.18, 0.6, (count, most))
    gaps = off[:, None] * rng.lognormal(-0.32, 0.8, (count, most))
    ends = np.cumsum(lengths + gaps, axis=1) - rng.uniform(0, 1, (count, 1)) * on[:, None]
    starts = ends - lengths
    who, which = np.nonzero((ends > 0) & (starts < horizon))
    start, end = np.maximum(starts[who, which], 0), np.minimum(ends[who, which], horizon)
    hour, weekday = (start % DAY) / HOUR, (start // DAY) % 7
    working = (weekday < 5) & (hour > 6.5) & (hour < 19)
    keep = ~office[who] | working | (rng.random(who.size) < 0.02)
    who, start, end = who[keep], start[keep], end[keep]

    room = rng.integers(0, rooms.space_id.size, count)
    moved_to = rng.integers(0, rooms.space_id.size, count)
    moved_on = np.where(rng.random(count) < 0.06, rng.uniform(0.2, 0.8, count), 2.0) * horizon
    place = np.where(start < moved_on[who], room[who], moved_to[who])
    # A third are also heard by the access point next door.
    next_door = np.minimum(room + 1, rooms.space_id.size - 1)
    heard = np.where(rng.random(count) < 0.33, rng.uniform(0.01, 0.12, count), 0.0)
    place = np.where(rng.random(who.size) < heard[who], next_door[who], place)
    return _Sessions(devices[who], rooms.space_id[place], start, end)


def _with_faults(
    rng: np.random.Generator, sessions: _Sessions, rooms: _Rooms, devices: int, days: int
) -> _Sessions:
    """Sessions heard by a room elsewhere in the building, and devices there for half of the time."""
    half_way = days * DAY / 2
    draw = rng.random(devices)
    absent_first, absent_second = draw < 0.04, (draw >= 0.04) & (draw < 0.08)
    keep = ~(absent_first[sessions.device] & (sessions.start < half_way))
    keep &= ~(absent_second[sessions.device] & (sessions.start >= half_way))
    keep &= (sessions.start >= 0) & (sessions.end > sessions.start + 1)
    keep &= sessions.end <= days * DAY

    first_room = int(rooms.space_id[0])
    room = sessions.space_id - first_room
    stray = (rng.random(room.size) < 0.004) & (room >= 0)
    near = np.clip(room + rng.integers(-9, 10, room.size), 0, rooms.space_id.size - 1)
    space_id = np.where(stray, rooms.space_id[near], sessions.space_id)
    return _Sessions(
        sessions.device[keep], space_id[keep], sessions.start[keep], sessions.end[keep]
    )


def _joined(parts: list[_Sessions]) -> _Sessions:
    return _Sessions(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("device", "space_id", "start", "end")
        )
    )


def _addresses(rng: np.random.Generator, devices: int) -> pa.Array:
    """Distinct locally administered MAC addresses; they say nothing about the device."""
    numbers = rng.choice(1 << 32, size=devices, replace=False)
    return pa.array([f"02:{n >> 32:02x}:" + ":".join(f"{n >> s & 255:02x}" for s in (24, 16, 8, 0))
                     for n in numbers.tolist()])  # fmt: skip


def _session_table(rng: np.random.Generator, sessions: _Sessions, addresses: pa.Array) -> pa.Table:
    """In the order in which the sessions began, at whole seconds. Larger rooms have two APs."""
    order = np.argsort(sessions.start, kind="stable")
    space_id = sessions.space_id[order]
    second_ap = (space_id % 3 == 0) & (rng.random(space_id.size) < 0.5)
    sensors = np.array([f"ap-{n // 2:04d}-{n % 2 + 1}" for n in range(2 * int(space_id.max()) + 2)])

    def moments(seconds: Floats) -> Any:
        return np.datetime64(FIRST_DAY, "us") + seconds.astype(np.int64) * np.timedelta64(1, "s")

    return pa.table(
        {
            "mac_address": addresses.take(pa.array(sessions.device[order])),
            "sensor_id": pa.array(sensors).take(pa.array(2 * space_id + second_ap)),
            "space_id": pa.array(space_id, pa.int32()),
            "start_time": pa.array(moments(sessions.start[order]), pa.timestamp("us")),
            "end_time": pa.array(moments(sessions.end[order]), pa.timestamp("us")),
        }
    )


def _people_per_hour(stays: _Stays, rooms: _Rooms, days: int) -> pa.Table:
    """Distinct persons per room and hour, a stay counting in every hour that it touches."""
    first = (stays.start // HOUR).astype(np.int64)
    hours = np.ceil(stays.end / HOUR).astype(np.int64) - first
    stay = np.repeat(np.arange(first.size), hours)
    hour = first[stay] + np.arange(stay.size) - np.repeat(np.cumsum(hours) - hours, hours)
    slots = days * 24 + 1
    place = stays.room[stay] * slots + hour
    people = int(stays.person.max()) + 1
    once = np.unique(place * people + stays.person[stay]) // people
    cell, count = np.unique(once, return_counts=True)
    begin = np.datetime64(FIRST_DAY, "us") + (cell % slots) * np.timedelta64(HOUR, "s")
    return pa.table(
        {
            "space_id": pa.array(rooms.space_id[cell // slots], pa.int32()),
            "interval_begin_time": pa.array(begin, pa.timestamp("us")),
            "people": pa.array(count, pa.int64()),
        }
    )
