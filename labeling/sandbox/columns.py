"""Columns on their way into the sandbox: raw bytes, from which `child.unpack` makes Python values.

Numbers cross as they lie in memory, texts as one text, times as the ten bytes that pickle keeps of
a datetime: several times cheaper, on both sides, than pickled lists of Python values.
"""

import datetime as dt
import uuid
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labeling.sandbox.child import AWARE, NAIVE, TEXT
from tippers.errors import CannotBeDone

Packed = list[Any] | tuple[str, bytes, bytes]
MOST_MICROSECONDS = (  # what a datetime can hold: years 1 to 9999
    np.datetime64("0001-01-01T00:00:00", "us").astype(np.int64),
    np.datetime64("9999-12-31T23:59:59.999999", "us").astype(np.int64),
)


def pack(column: pa.ChunkedArray) -> Packed:  # noqa: PLR0911 - one row per kind of column
    """A column for the sandbox: (kind, bytes, positions of nulls), or plain Python values.

    Inside, a value is what `to_pylist` makes of it, save that decimals become floats and times
    lose their nanoseconds and, where they have a zone, are in UTC; a UUID is its text.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return pack(column.cast(kind.value_type))
    if pa.types.is_decimal(kind):
        return pack(column.cast(pa.float64()))
    if pa.types.is_float16(kind):
        return pack(column.cast(pa.float32()))
    nulls = b""
    if column.null_count:
        nulls = np.flatnonzero(column.is_null().to_numpy()).astype(np.int32).tobytes()
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        if nulls:
            column = column.fill_null(False if pa.types.is_boolean(kind) else 0)
        numbers = column.to_numpy()
        return numbers.dtype.char, numbers.tobytes(), nulls
    if pa.types.is_timestamp(kind):
        return AWARE if kind.tz else NAIVE, _times(column), nulls
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        text = _texts(column)
        # A NUL inside a text, which PostgreSQL does not have but others do, would split it.
        if text.count(b"\0") == len(column) - 1:
            return TEXT, text, nulls
    values: list[Any] = column.to_pylist()
    if (
        pa.types.is_nested(kind)
        or pa.types.is_duration(kind)
        or isinstance(kind, pa.BaseExtensionType)
    ):
        return [_plain(value) for value in values]
    return values


def _plain(value: Any) -> Any:
    """The value without what the sandbox would have to open a file for: zones, pandas, UUIDs."""
    match value:
        case list() | tuple():
            inner = map(_plain, value)
            return list(inner) if isinstance(value, list) else tuple(inner)
        case dict():
            return {key: _plain(one) for key, one in value.items()}
        case dt.datetime():
            time = dt.datetime.combine(value.date(), value.time(), value.tzinfo)
            return time.astimezone(dt.UTC) if time.tzinfo else time
        case dt.timedelta():
            return dt.timedelta(value.days, value.seconds, value.microseconds)
        case uuid.UUID():
            return str(value)
    return value


def _texts(column: pa.ChunkedArray) -> bytes:
    """All texts with a NUL between; nulls are empty."""
    texts = column.cast(pa.string()).combine_chunks()
    if texts.null_count:
        texts = texts.fill_null("")
    whole = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    joined: bytes = pc.binary_join(whole, "\0")[0].as_buffer().to_pybytes()
    return joined


def _times(column: pa.ChunkedArray) -> bytes:
    """Ten bytes a time, as datetime.__reduce__ has them: year, month, ..., microsecond."""
    whole = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    if whole.null_count:
        whole = whole.fill_null(0)
    times: npt.NDArray[np.int64] = whole.to_numpy()
    least, most = MOST_MICROSECONDS
    if len(times) and not (least <= times.min() and times.max() <= most):
        raise CannotBeDone("a time lies outside of the years 1 to 9999, which Python cannot hold")
    # Dividing by a constant and multiplying back is several times faster than divmod.
    days = times // 86_400_000_000
    micros = times - days * 86_400_000_000
    second = micros // 1_000_000
    micro = (micros - second * 1_000_000).astype(np.int32)
    second = second.astype(np.int32)
    minute = second // 60
    hour = minute // 60
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    month = months.astype(np.int32) + 1970 * 12
    year = month // 12
    state = np.empty((len(times), 10), dtype=np.uint8)
    state[:, 0], state[:, 1] = year >> 8, year & 255
    state[:, 2], state[:, 3] = month - year * 12 + 1, (dates - months).astype(np.int32) + 1
    state[:, 4], state[:, 5], state[:, 6] = hour, minute - hour * 60, second - minute * 60
    state[:, 7], state[:, 8], state[:, 9] = micro >> 16, micro >> 8 & 255, micro & 255
    return state.tobytes()
