"""The concept for sessions of a place that people visit: who passes by, who visits, who comes back.

There is no truth to learn from: dwell time, the floors reached and the days seen are all there is.
A day in the queries is a day in UTC; a place whose opening hours cross midnight in UTC would write
`start_time + INTERVAL '9 hours'` there.
"""

from tippers.sample.recipe import Custom, Query, Recipe, Regex, Template

RULES = (
    Query(
        "dwell",
        """
        WITH visits AS (
            SELECT mac_address, start_time::date AS day,
                   COUNT(*) AS sessions,
                   COUNT(DISTINCT space_id) AS rooms,
                   EXTRACT(EPOCH FROM (MAX(end_time) - MIN(start_time))) / 60 AS minutes
            FROM user_ap_trajectory
            WHERE mac_address IN (:index_values)
            GROUP BY mac_address, start_time::date
        )
        SELECT mac_address,
               COUNT(*) AS visits,
               AVG(minutes) AS mean_visit_minutes,
               MAX(minutes) AS longest_visit_minutes
        FROM visits
        GROUP BY mac_address
        """,
    ),
    Query(
        "reach",
        """
        SELECT t.mac_address,
               COUNT(DISTINCT t.space_id) AS rooms,
               COUNT(DISTINCT room.parent_space_id) AS floors,
               COUNT(DISTINCT t.start_time::date) AS days,
               STRING_AGG(DISTINCT COALESCE(above.building_room, above.space_id::text), ' ')
                   AS floors_seen
        FROM user_ap_trajectory t
        JOIN space room ON room.space_id = t.space_id
        JOIN space above ON above.space_id = COALESCE(room.parent_space_id, room.space_id)
        WHERE t.mac_address IN (:index_values)
        GROUP BY t.mac_address
        """,
    ),
    Query(
        "returning",
        """
        SELECT mac_address,
               COUNT(DISTINCT start_time::date) AS days_seen,
               COUNT(DISTINCT DATE_TRUNC('week', start_time)) AS weeks_seen,
               EXTRACT(EPOCH FROM (MAX(start_time) - MIN(start_time))) / 86400 AS days_between
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
    ),
    Query(
        "walk",
        """
        WITH visits AS (
            SELECT mac_address, start_time::date AS day,
                   COUNT(*) AS sessions,
                   COUNT(DISTINCT space_id) AS rooms,
                   EXTRACT(EPOCH FROM (MAX(end_time) - MIN(start_time))) / 60 AS minutes
            FROM user_ap_trajectory
            WHERE mac_address IN (:index_values)
            GROUP BY mac_address, start_time::date
        )
        SELECT mac_address,
               COUNT(*) AS visits,
               AVG(rooms) AS rooms_per_visit,
               AVG(sessions) AS sessions_per_visit,
               MAX(sessions) AS most_sessions
        FROM visits
        GROUP BY mac_address
        """,
    ),
)

LABELING_FUNCTIONS = (
    Template("seen_on_four_days", "returning", "days_seen", ">=", 4, "REGULAR"),
    Custom(
        "comes_back_after_weeks",
        "returning",
        ("REGULAR",),
        """
def labeling_function(row):
    if row['days_seen'] >= 3 and row['days_between'] >= 21:
        return REGULAR
    return ABSTAIN
""",
    ),
    Custom(
        "visits_in_three_weeks",
        "returning",
        ("VISITOR", "REGULAR"),
        """
def labeling_function(row):
    if row['weeks_seen'] >= 3:
        return REGULAR
    if row['days_seen'] == 2:
        return VISITOR
    return ABSTAIN
""",
    ),
    Custom(
        "gone_within_minutes",
        "dwell",
        ("PASSER_BY", "VISITOR"),
        """
def labeling_function(row):
    if row['visits'] <= 2 and row['longest_visit_minutes'] < 5:
        return PASSER_BY
    if row['visits'] <= 2 and row['longest_visit_minutes'] >= 12:
        return VISITOR
    return ABSTAIN
""",
    ),
    Regex("one_floor_alone", "reach", "floors_seen", r"^\S+$", "PASSER_BY"),
    Custom(
        "went_to_another_floor",
        "reach",
        ("VISITOR",),
        """
def labeling_function(row):
    if row['floors'] >= 2 and row['days'] <= 2:
        return VISITOR
    return ABSTAIN
""",
    ),
    Template("heard_by_two_sensors_at_most", "reach", "rooms", "<=", 2, "PASSER_BY"),
    Custom(
        "walks_around",
        "walk",
        ("PASSER_BY", "VISITOR"),
        """
def labeling_function(row):
    if row['visits'] <= 2 and row['rooms_per_visit'] >= 5:
        return VISITOR
    if row['visits'] <= 2 and row['most_sessions'] <= 3:
        return PASSER_BY
    return ABSTAIN
""",
    ),
    Custom(
        "knows_the_way",
        "walk",
        ("REGULAR",),
        """
def labeling_function(row):
    if row['visits'] >= 4 and row['rooms_per_visit'] >= 2:
        return REGULAR
    return ABSTAIN
""",
    ),
)

FEATURES = (
    Query(
        "session_minutes",
        """
        SELECT mac_address,
               AVG(EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS mean_minutes,
               MAX(EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS longest_minutes,
               SUM(EXTRACT(EPOCH FROM (end_time - start_time)) / 60) AS total_minutes
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("mean_minutes", "longest_minutes", "total_minutes"),
        "How long the sensors hear it",
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
        "days",
        """
        SELECT mac_address,
               COUNT(DISTINCT start_time::date) AS days,
               EXTRACT(EPOCH FROM (MAX(end_time) - MIN(start_time))) / 86400 AS days_between
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("days", "days_between"),
        "On how many days it was seen, and over what time",
    ),
    Query(
        "unique_spaces",
        """
        SELECT mac_address, COUNT(DISTINCT space_id) AS unique_spaces
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("unique_spaces",),
        "By how many sensors it was heard",
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
               AVG(CASE WHEN EXTRACT(ISODOW FROM start_time) >= 6
                        THEN 1.0 ELSE 0.0 END) AS at_weekends
        FROM user_ap_trajectory
        WHERE mac_address IN (:index_values)
        GROUP BY mac_address
        """,
        ("mean_hour", "at_weekends"),
        "At what hours and on what days it comes",
    ),
)

VISITORS = Recipe(
    concept="visitor_kinds",
    description="Who passes by, who visits, and who comes back",
    values=(
        ("PASSER_BY", "Heard for minutes at the edge, and gone"),
        ("VISITOR", "Walks around, once or twice"),
        ("REGULAR", "Comes back over weeks"),
    ),
    index=Query(
        "visiting_devices",
        "SELECT DISTINCT mac_address FROM user_ap_trajectory ORDER BY mac_address",
    ),
    rules=RULES,
    labeling_functions=LABELING_FUNCTIONS,
    features=FEATURES,
    # Regulars are few; three times as many of the others would make the bank's work much longer.
    classifiers={"imbalance_factor": 1.5},
)
