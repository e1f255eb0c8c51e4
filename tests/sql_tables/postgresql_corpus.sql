-- Queries as analysts write them, a paragraph each, over the tables that tests/test_sql_corpus.py
-- makes. Each runs as it stands and as it is rendered, and gives the same.

SELECT DISTINCT mac_address FROM user_ap_trajectory ORDER BY mac_address

SELECT mac_address, count(*), min(start_time), max(end_time)
FROM user_ap_trajectory GROUP BY mac_address ORDER BY 1

-- hours on campus per device
SELECT mac_address, sum(extract(epoch FROM end_time - start_time)) / 3600 AS hours /* in hours */
FROM user_ap_trajectory GROUP BY mac_address HAVING count(*) > 1 ORDER BY hours DESC, mac_address

SELECT mac_address, count(DISTINCT date(start_time)) AS days FROM user_ap_trajectory GROUP BY 1 ORDER BY 1

SELECT mac_address, start_time, lag(end_time) OVER w AS before, start_time - lag(end_time) OVER w > interval '1 hour' AS gap
FROM user_ap_trajectory WINDOW w AS (PARTITION BY mac_address ORDER BY start_time) ORDER BY 1, 2

SELECT *, row_number() OVER (PARTITION BY mac_address ORDER BY end_time - start_time DESC, start_time) AS rank
FROM user_ap_trajectory ORDER BY mac_address, rank

SELECT mac_address, space_id, percent_rank() OVER (ORDER BY signal), ntile(3) OVER (ORDER BY signal, start_time), cume_dist() OVER (ORDER BY signal)
FROM user_ap_trajectory ORDER BY signal, start_time

SELECT start_time, avg(signal) OVER (ORDER BY start_time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS smooth,
       sum(signal) OVER (ORDER BY start_time RANGE BETWEEN interval '1 day' PRECEDING AND CURRENT ROW EXCLUDE TIES)
FROM user_ap_trajectory ORDER BY start_time, signal

SELECT first_value(space_id) OVER w, last_value(space_id) OVER w, nth_value(space_id, 2) OVER w
FROM user_ap_trajectory
WINDOW w AS (PARTITION BY mac_address ORDER BY start_time ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
ORDER BY mac_address, start_time

WITH daily AS (
    SELECT mac_address, date_trunc('day', start_time) AS day, count(*) AS n FROM user_ap_trajectory GROUP BY 1, 2
), busiest AS MATERIALIZED (SELECT mac_address, max(n) AS most FROM daily GROUP BY mac_address)
SELECT d.mac_address, d.day::date, d.n FROM daily d JOIN busiest b ON b.mac_address = d.mac_address AND b.most = d.n ORDER BY 1, 2

WITH RECURSIVE below AS (
    SELECT space_id, name, 0 AS depth FROM space WHERE parent_space_id IS NULL
    UNION ALL
    SELECT s.space_id, s.name, below.depth + 1 FROM space s JOIN below ON s.parent_space_id = below.space_id
)
SELECT depth, count(*), string_agg(name, ' / ' ORDER BY name) FROM below GROUP BY depth ORDER BY depth

WITH RECURSIVE path(space_id, parent_space_id, names) AS (
    SELECT space_id, parent_space_id, array[name::text] FROM space
    UNION ALL
    SELECT p.space_id, s.parent_space_id, s.name::text || p.names FROM path p JOIN space s ON s.space_id = p.parent_space_id
)
SELECT space_id, array_to_string(names, ' > ') FROM path WHERE parent_space_id IS NULL ORDER BY space_id

SELECT s.name, latest.mac_address, latest.start_time FROM space s
CROSS JOIN LATERAL (SELECT t.mac_address, t.start_time FROM user_ap_trajectory t WHERE t.space_id = s.space_id ORDER BY t.start_time DESC LIMIT 1) AS latest
ORDER BY s.name

SELECT s.name, coalesce(q.n, 0) AS n FROM space AS s
LEFT JOIN LATERAL (SELECT count(*) AS n FROM user_ap_trajectory t WHERE t.space_id = s.space_id AND t.signal > -60) q ON true
ORDER BY n DESC, s.name

SELECT floor, space_id, grouping(floor, space_id), count(*) FROM user_ap_trajectory JOIN space USING (space_id)
GROUP BY GROUPING SETS ((floor), (floor, space_id), ()) ORDER BY 1, 2, 3

SELECT floor, name, sum(capacity) FROM space GROUP BY ROLLUP (floor, name) ORDER BY floor NULLS LAST, name NULLS FIRST

SELECT floor, capacity > 20 AS large, count(*) FROM space GROUP BY CUBE (floor, 2) ORDER BY 1, 2, 3

SELECT count(*) FILTER (WHERE extract(hour FROM start_time) BETWEEN 9 AND 17) AS at_day,
       count(*) FILTER (WHERE extract(isodow FROM start_time) IN (6, 7)) AS at_weekend
FROM user_ap_trajectory

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY signal), percentile_disc(array[0.25, 0.75]) WITHIN GROUP (ORDER BY signal),
       mode() WITHIN GROUP (ORDER BY space_id) FROM user_ap_trajectory

SELECT stddev(signal), stddev_pop(signal), variance(signal), var_samp(signal), corr(signal, space_id), regr_slope(signal, space_id)
FROM user_ap_trajectory

SELECT mac_address, array_agg(DISTINCT space_id ORDER BY space_id), array_agg(start_time::date::text ORDER BY start_time)
FROM user_ap_trajectory GROUP BY mac_address ORDER BY 1

SELECT id, payload->>'kind', payload->'detail'->>'level', payload #>> '{detail,tags,0}', payload #> '{detail}' FROM events ORDER BY id

SELECT id FROM events WHERE payload @> '{"kind": "door"}' AND payload ? 'detail' AND NOT payload ?| array['x', 'y'] ORDER BY id

SELECT id, payload ?& array['kind', 'detail'] AS both, payload - 'detail' AS rest, payload #- '{detail,level}' AS less, payload || '{"a": 1}' AS more
FROM events ORDER BY id

SELECT id, key, value FROM events, jsonb_each_text(payload) ORDER BY id, key

SELECT e.id, tag FROM events e CROSS JOIN LATERAL jsonb_array_elements_text(e.payload->'detail'->'tags') AS t(tag) ORDER BY 1, 2

SELECT id, x.kind, x.detail FROM events, jsonb_to_record(payload) AS x(kind text, detail jsonb) ORDER BY id

SELECT id, jsonb_path_query_first(payload, '$.detail.level ? (@ > 1)'), jsonb_path_exists(payload, '$.detail.tags[*] ? (@ == "a")') FROM events ORDER BY id

SELECT payload->>'kind' AS kind, jsonb_agg(id ORDER BY id), jsonb_object_agg(id, payload ORDER BY id), json_build_object('n', count(*)) FROM events GROUP BY 1 ORDER BY 1

SELECT jsonb_typeof(payload->'detail'), jsonb_array_length(payload->'detail'->'tags'), jsonb_set(payload, '{kind}', '"x"') FROM events ORDER BY id

SELECT id, readings[1], readings[2:3], array_length(readings, 1), cardinality(readings), readings || 9, 5 = ANY (readings), 0 < ALL (readings)
FROM events ORDER BY id

SELECT id, r.value, r.place FROM events, unnest(readings) WITH ORDINALITY AS r(value, place) ORDER BY id, place

SELECT id FROM events WHERE readings && array[5, 7] AND readings @> array[5] AND NOT readings <@ '{1,2}'::int[] ORDER BY id

SELECT id, (SELECT max(v) FROM unnest(readings) AS v), array(SELECT v * 2 FROM unnest(readings) v ORDER BY v DESC) FROM events ORDER BY id

SELECT id, array_position(readings, 5), array_remove(readings, 5), array_replace(readings, 5, 50), array_to_string(readings, '-', '?') FROM events ORDER BY id

SELECT name FROM space WHERE name ~ '^R[0-9]+$' OR name ~* 'HALL' OR name !~ '[a-z]' ORDER BY name

SELECT name, regexp_replace(name, '(\w)(\d+)', '\2-\1'), regexp_match(name, '(\d)(\d*)'), substring(name FROM '[0-9]+'), name SIMILAR TO 'R%|H%' FROM space ORDER BY name

SELECT name, part FROM space, regexp_split_to_table(name, '\s+') AS part ORDER BY 1, 2

SELECT name, upper(name), lower(name), initcap(name), length(name), char_length(name), octet_length(name), reverse(name), left(name, 2), right(name, -1) FROM space ORDER BY 1

SELECT strpos(name, 'a'), position('a' IN name), substr(name, 2, 3), substring(name FROM 2 FOR 3), overlay(name PLACING 'XX' FROM 1 FOR 2), split_part(name, ' ', 1) FROM space ORDER BY name

SELECT lpad(name, 12, '.'), rpad(name, 12), trim(BOTH 'R' FROM name), btrim(name, 'R1'), ltrim(name), translate(name, 'aeiou', '12345'), repeat('ab', 2), md5(name), concat_ws('-', name, NULL, floor) FROM space ORDER BY name

SELECT format('%s has %L in %I', name, capacity, 'Odd Name'), name || ' (' || capacity || ')', chr(65) || ascii('a'), to_hex(capacity), encode(sha256('x'), 'hex') FROM space ORDER BY name

SELECT name ILIKE '%hall%', name LIKE 'R\_%' ESCAPE '\', name NOT LIKE '%x%', starts_with(name, 'R') FROM space ORDER BY name

SELECT start_time + interval '90 minutes', start_time - '1 day'::interval, start_time::date + 1, date '2024-02-28' + 2, age(end_time, start_time)::text, end_time - start_time > interval '1:30' FROM user_ap_trajectory ORDER BY start_time

SELECT date_trunc('week', start_time), date_part('dow', start_time), extract(doy FROM start_time), extract(epoch FROM start_time)::bigint, to_char(start_time, 'YYYY-MM-DD HH24:MI') FROM user_ap_trajectory ORDER BY start_time

SELECT start_time AT TIME ZONE 'UTC' AT TIME ZONE 'Asia/Seoul', timezone('America/New_York', start_time AT TIME ZONE 'UTC'), (start_time AT TIME ZONE 'UTC')::time FROM user_ap_trajectory ORDER BY start_time

SELECT date_bin('15 minutes', start_time, timestamp '2024-01-01'), make_date(2024, 2, 29), make_interval(hours => 2) > interval '1 hour', to_timestamp(1700000000), to_date('2024-03-01', 'YYYY-MM-DD'), isfinite(start_time) FROM user_ap_trajectory ORDER BY start_time

SELECT (start_time, end_time) OVERLAPS (timestamp '2024-01-01', timestamp '2024-01-02') FROM user_ap_trajectory ORDER BY start_time

SELECT hour, count(t.mac_address) FROM generate_series(timestamp '2024-01-01', timestamp '2024-01-01 23:00', interval '1 hour') AS g(hour)
LEFT JOIN user_ap_trajectory t ON t.start_time < hour + interval '1 hour' AND t.end_time > hour GROUP BY hour ORDER BY hour

SELECT CASE WHEN signal > -50 THEN 'near' WHEN signal > -70 THEN 'far' ELSE 'away' END AS band, count(*) FROM user_ap_trajectory GROUP BY band ORDER BY band

SELECT CASE floor WHEN 1 THEN 'ground' WHEN 2 THEN 'first' END, nullif(capacity, 0), coalesce(parent_space_id, -1), greatest(capacity, 20), least(floor, 2) FROM space ORDER BY name

SELECT capacity::text, capacity::numeric(10, 2), capacity / 7, capacity / 7.0, capacity % 7, capacity ^ 2, |/ capacity, @ (-capacity), capacity & 3, capacity # 1, ~capacity, capacity << 1 FROM space ORDER BY name

SELECT CAST('5' AS int), '2024-01-01'::date, CAST(1.5 AS numeric(4, 1)), 'true'::boolean, '10.0.0.1'::inet, '08:00:2b:01:02:03'::macaddr, '{1,2}'::int[], 1::double precision, B'101' & B'110', x'ff', 'a'::char(3)

SELECT round(signal / 3.0, 2), trunc(-1.5), ceil(1.2), floor(1.8), abs(signal), sign(signal), mod(7, 3), power(2, 10), sqrt(16), cbrt(27), ln(10), log(100), exp(1), pi(), width_bucket(signal, -100, 0, 4) FROM user_ap_trajectory ORDER BY start_time

SELECT mac_address FROM user_ap_trajectory WHERE space_id = 3 UNION SELECT mac_address FROM user_ap_trajectory WHERE space_id = 4 ORDER BY 1

(SELECT mac_address FROM user_ap_trajectory WHERE signal > -60 EXCEPT SELECT mac_address FROM user_ap_trajectory WHERE space_id = 4) INTERSECT ALL SELECT 'aa:00:00:00:00:01' ORDER BY 1

SELECT DISTINCT ON (mac_address) mac_address, space_id, start_time FROM user_ap_trajectory ORDER BY mac_address, start_time DESC

SELECT s.name FROM space s WHERE NOT EXISTS (SELECT FROM user_ap_trajectory t WHERE t.space_id = s.space_id) ORDER BY 1

SELECT name FROM space WHERE space_id IN (SELECT space_id FROM user_ap_trajectory) AND (floor, capacity) IN ((1, 30), (2, 10)) ORDER BY name

SELECT name FROM space WHERE capacity > ALL (SELECT 5) AND parent_space_id IS NOT DISTINCT FROM 1 AND (capacity > 10) IS TRUE ORDER BY capacity DESC OFFSET 1 ROWS FETCH FIRST 2 ROWS ONLY

SELECT a.mac_address, b.mac_address, count(*) FROM user_ap_trajectory a JOIN user_ap_trajectory b
  ON a.space_id = b.space_id AND a.mac_address < b.mac_address AND tsrange(a.start_time, a.end_time) && tsrange(b.start_time, b.end_time)
GROUP BY 1, 2 ORDER BY 1, 2

SELECT * FROM space NATURAL JOIN (SELECT space_id, count(*) AS visits FROM user_ap_trajectory GROUP BY space_id) v ORDER BY space_id

SELECT t.mac_address AS "Device", s.name AS "Naïve ""Name""" FROM user_ap_trajectory t FULL OUTER JOIN space s ON s.space_id = t.space_id ORDER BY 1, 2

SELECT x.n, y.n FROM (VALUES (1, 'one'), (2, 'two')) AS x(n, w) CROSS JOIN (VALUES (10), (20)) y(n) ORDER BY 1, 2

SELECT bool_and(signal < 0), bool_or(signal > -50), every(signal < 0), bit_or(space_id), string_agg(DISTINCT mac_address, ',' ORDER BY mac_address) FROM user_ap_trajectory

SELECT current_date = now()::date, current_timestamp >= localtimestamp AT TIME ZONE 'UTC', pg_typeof(1.5)::text

SELECT string_to_array(name, ' '), unnest(string_to_array('a,b', ',')), generate_series(1, 2) FROM space WHERE name LIKE '%Hall%' ORDER BY 2

SELECT row_to_json(s)::text, to_jsonb(s) ->> 'name', (s.*) IS NOT NULL FROM space s ORDER BY space_id

SELECT lower(tsrange(start_time, end_time)), upper(tsrange(start_time, end_time)), start_time <@ tsrange('2024-01-01', '2024-01-02') FROM user_ap_trajectory ORDER BY start_time

SELECT mac_address, space_id, started, max(end_time) AS ended FROM (
    SELECT *, start_time - sum(CASE WHEN fresh THEN 1 ELSE 0 END) OVER w * interval '0 s' AS started FROM (
        SELECT *, lag(space_id) OVER (PARTITION BY mac_address ORDER BY start_time) IS DISTINCT FROM space_id AS fresh FROM user_ap_trajectory
    ) marked WINDOW w AS (PARTITION BY mac_address ORDER BY start_time)
) islands GROUP BY 1, 2, 3 ORDER BY 1, 3
