"""The campus demo's concept: is a device static, a laptop or a phone?

The queries are what somebody who knows a campus would ask of its sessions; the functions say what
they believe of each kind of device. No one of them is right for every device: projectors keep
office hours, docked laptops stay overnight, some phones hold one session all afternoon.
"""

from tippers.sample.recipe import Custom, Query, Recipe, Regex, Template

SESSION_LENGTHS = Query(
    "session_lengths",
    """
    SELECT mac_address,
           COUNT(*) AS sessions,
           AVG(EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS mean_minutes,
           PERCENTILE_CONT(0.5) WITHIN GROUP (
               ORDER BY EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS median_minutes,
           AVG(CASE WHEN end_time - start_time <= INTERVAL '15 minutes'
                    THEN 1.0 ELSE 0.0 END) AS short_share
    FROM user_ap_trajectory
    WHERE mac_address IN (:index_values)
    GROUP BY mac_address
    """,
)
PLACES = Query(
    "places",
    """
    WITH per_room AS (
        SELECT mac_address, space_id, COUNT(*) AS sessions
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address, space_id
    )
    SELECT mac_address,
           COUNT(*) AS rooms,
           SUM(sessions) AS sessions,
           MAX(sessions) * 1.0 / SUM(sessions) AS main_room_share
    FROM per_room
    GROUP BY mac_address
    """,
)
CLOCK = Query(
    "clock",
    """
    SELECT mac_address,
           COUNT(*) AS sessions,
           AVG(CASE WHEN EXTRACT(HOUR FROM start_time) < 6 THEN 1.0 ELSE 0.0 END) AS night_share,
           AVG(CASE WHEN EXTRACT(ISODOW FROM start_time) >= 6
                    THEN 1.0 ELSE 0.0 END) AS weekend_share,
           AVG(CASE WHEN EXTRACT(ISODOW FROM start_time) < 6
                     AND EXTRACT(HOUR FROM start_time) >= 9
                     AND EXTRACT(HOUR FROM start_time) < 21
                    THEN 1.0 ELSE 0.0 END) AS working_share,
           COUNT(DISTINCT space_id) AS rooms
    FROM user_ap_trajectory
    WHERE mac_address IN (:index_values)
    GROUP BY mac_address
    """,
)
RHYTHM = Query(
    "rhythm",
    """
    WITH per_hour AS (
        SELECT mac_address, TO_CHAR(start_time, 'HH24') AS hour, COUNT(*) AS sessions,
               SUM(COUNT(*)) OVER (PARTITION BY mac_address) AS all_sessions
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address, TO_CHAR(start_time, 'HH24')
    )
    SELECT mac_address,
           MAX(all_sessions) AS sessions,
           STRING_AGG(CASE WHEN sessions >= 0.02 * all_sessions THEN hour END, ' ' ORDER BY hour)
               AS usual_hours
    FROM per_hour
    GROUP BY mac_address
    """,
)
PRESENCE = Query(
    "presence",
    """
    SELECT mac_address,
           COUNT(DISTINCT start_time::date) AS days_seen,
           COUNT(*) * 1.0 / COUNT(DISTINCT start_time::date) AS sessions_per_day,
           COUNT(DISTINCT start_time::date) * 1.0
               / (MAX(start_time::date) - MIN(start_time::date) + 1) AS share_of_days,
           COUNT(DISTINCT space_id) AS rooms,
           COUNT(DISTINCT space_id) * 1.0 / COUNT(DISTINCT start_time::date) AS rooms_per_day
    FROM user_ap_trajectory
    WHERE mac_address IN (:index_values)
    GROUP BY mac_address
    """,
)
ROAMING = Query(
    "roaming",
    """
    WITH per_hour AS (
        SELECT mac_address, DATE_TRUNC('hour', start_time) AS hour,
               COUNT(DISTINCT space_id) AS rooms
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address, DATE_TRUNC('hour', start_time)
    )
    SELECT mac_address,
           COUNT(*) AS hours,
           AVG(CASE WHEN rooms >= 2 THEN 1.0 ELSE 0.0 END) AS roaming_share
    FROM per_hour
    GROUP BY mac_address
    """,
)

ALL = ("STATIC", "LAPTOP", "PHONE")
LABELING_FUNCTIONS = (
    Regex(
        "usual_at_every_hour_of_the_night", "rhythm", "usual_hours", "^00 01 02 03 04 05", "STATIC"
    ),
    Template("sessions_of_hours", "session_lengths", "mean_minutes", ">=", 200, "STATIC"),
    Custom(
        "nights_and_weekends_like_any_day",
        "clock",
        ("STATIC",),
        """
def labeling_function(row):
    if row['sessions'] < 20:
        return ABSTAIN
    if row['night_share'] >= 0.15 and row['weekend_share'] >= 0.2:
        return STATIC
    return ABSTAIN
""",
    ),
    Custom(
        "there_every_single_day",
        "presence",
        ("STATIC",),
        """
def labeling_function(row):
    if row['days_seen'] >= 10 and row['share_of_days'] >= 0.95 and row['rooms'] <= 6:
        return STATIC
    return ABSTAIN
""",
    ),
    Custom(
        "main_room",
        "places",
        ("STATIC", "PHONE"),
        """
def labeling_function(row):
    if row['sessions'] >= 150 and row['main_room_share'] >= 0.9:
        return STATIC
    if row['sessions'] >= 10 and row['main_room_share'] < 0.35 and row['rooms'] >= 4:
        return PHONE
    return ABSTAIN
""",
    ),
    Template("many_rooms", "places", "rooms", ">=", 12, "PHONE"),
    Template("roams_within_the_hour", "roaming", "roaming_share", ">=", 0.1, "PHONE"),
    Custom(
        "wakes_often_and_moves",
        "presence",
        ("PHONE", "LAPTOP"),
        """
def labeling_function(row):
    if row['sessions_per_day'] >= 4 and row['rooms_per_day'] >= 0.3:
        return PHONE
    if row['sessions_per_day'] < 4.5 and row['rooms'] <= 6 and 5 <= row['days_seen'] < 80:
        return LAPTOP
    return ABSTAIN
""",
    ),
    Custom(
        "length_of_a_sitting",
        "session_lengths",
        ALL,
        """
def labeling_function(row):
    if row['sessions'] < 5:
        return ABSTAIN
    if 18 <= row['median_minutes'] <= 75 and row['short_share'] < 0.4:
        return LAPTOP
    if row['short_share'] >= 0.95 and row['sessions'] >= 100:
        return STATIC
    if 0.65 <= row['short_share'] < 0.95 and row['median_minutes'] < 10:
        return PHONE
    return ABSTAIN
""",
    ),
    Custom(
        "few_rooms_in_working_hours",
        "clock",
        ("LAPTOP",),
        """
def labeling_function(row):
    if row['sessions'] < 20:
        return ABSTAIN
    if row['rooms'] <= 6 and row['night_share'] < 0.06 and row['working_share'] >= 0.6:
        return LAPTOP
    return ABSTAIN
""",
    ),
)
RULES = (SESSION_LENGTHS, PLACES, CLOCK, RHYTHM, PRESENCE, ROAMING)
FEATURES = (
    Query(
        "session_minutes",
        """
        SELECT mac_address,
               AVG(EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS mean_minutes,
               STDDEV(EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS spread_minutes,
               MAX(EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS longest_minutes
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("mean_minutes", "spread_minutes", "longest_minutes"),
        "How long the device stays connected",
    ),
    Query(
        "connections",
        """
        SELECT mac_address, COUNT(*) AS total_connections
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("total_connections",),
        "Sessions in the whole range",
    ),
    Query(
        "days_connected",
        """
        SELECT mac_address,
               COUNT(DISTINCT start_time::date) AS days_connected,
               COUNT(*) * 1.0 / COUNT(DISTINCT start_time::date) AS connections_per_day
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("days_connected", "connections_per_day"),
        "On how many days it was seen, and how often on such a day",
    ),
    Query(
        "unique_spaces",
        """
        SELECT mac_address,
               COUNT(DISTINCT space_id) AS unique_spaces,
               COUNT(DISTINCT space_id) * 1.0 / COUNT(*) AS spaces_per_connection
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("unique_spaces", "spaces_per_connection"),
        "In how many spaces it was seen",
    ),
    Query(
        "first_and_last_day",
        """
        SELECT mac_address, MIN(start_time) AS first_seen, MAX(end_time) AS last_seen
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("first_seen", "last_seen"),
        "When it was seen first and last",
    ),
    Query(
        "time_of_day",
        """
        SELECT mac_address,
               AVG(EXTRACT(HOUR FROM start_time)) AS mean_hour,
               STDDEV(EXTRACT(HOUR FROM start_time)) AS spread_hours,
               AVG(CASE WHEN EXTRACT(HOUR FROM start_time) < 6 THEN 1.0 ELSE 0.0 END) AS at_night,
               AVG(CASE WHEN EXTRACT(ISODOW FROM start_time) >= 6
                        THEN 1.0 ELSE 0.0 END) AS at_weekends
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("mean_hour", "spread_hours", "at_night", "at_weekends"),
        "At what hours and on what days it connects",
    ),
)

DEVICES = Recipe(
    concept="device_types",
    description="What kind of device it is, by how it uses the Wi-Fi",
    values=(
        ("STATIC", "Stands in a room: screens, sensors, projectors"),
        ("LAPTOP", "Opened where somebody sits down to work"),
        ("PHONE", "Carried about, and awake for minutes at a time"),
    ),
    index=Query(
        "devices",
        "SELECT DISTINCT mac_address FROM user_location_trajectory ORDER BY mac_address",
    ),
    rules=RULES,
    labeling_functions=LABELING_FUNCTIONS,
    features=FEATURES,
)
