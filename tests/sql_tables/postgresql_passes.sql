-- One query on each line; all of them pass.
SELECT mac_address, array_agg(space_id ORDER BY start_time) FROM user_ap_trajectory GROUP BY 1
SELECT * FROM public.user_ap_trajectory AS t (mac, space, began, ended)
SELECT t.* FROM "Schema With Space"."Table" t
SELECT 'DROP TABLE users' AS warning
SELECT 'it''s; DELETE FROM t' AS a, E'\\' AS b, E'\'' AS c, '\' AS d
SELECT '/* not a comment */' AS a, '-- nor this' AS b
SELECT "select", "from", "insert into" FROM t
SELECT a AS "pg_sleep(10)" FROM t
SELECT deleted_at, update_count, insert_time, lock_level, call_id, copy_of, set_name, do_not_track FROM audit
SELECT a.update, a.delete FROM audit a
SELECT 1 /* outer /* inner */ still outer */ + 1
SELECT 1 -- FOR UPDATE
SELECT -1, - 1, +1, 1 - -1, 2 * -3
SELECT 1.5, .5, 1e10, 1.5e-3, 1_000
SELECT b'101', B'0', x'1F', X'ff', N'text'
SELECT a[1], a[1:2], a[:2], a[2:], a[:], m[1][2] FROM t
SELECT array[1, 2] || array[3], array[[1, 2], [3, 4]], array[]::int[]
SELECT (a).b, (a.b).c FROM t
SELECT ROW(1, 'a'), (1, 'a') = (1, 'a') FROM t
SELECT a::int::text, (a + b)::numeric(10, 2), '1 day'::interval, 'x'::varchar(5), a::double precision, a::timestamp with time zone, a::timestamptz(3) FROM t
SELECT CAST(a AS timestamp without time zone), CAST(b AS character varying(10)), CAST(c AS bit(3)), CAST(d AS time(0)) FROM t
SELECT interval '1' day, interval '1-2' year to month, timestamp with time zone '2024-01-01 00:00+09'
SELECT a !~~ 'x', a ~~* 'x', a !~* 'x', a ->> 'b', a -> 0, a #>> '{b}', a @> b, a <@ b, a ?| b, a ?& b, a @? '$.b', a @@ 'c' FROM t
SELECT a <-> b, a <=> b, a && b, a -|- b, a << b, a >> b, a &< b FROM t
SELECT a IS DISTINCT FROM b, a IS NOT NULL, a ISNULL, a IS UNKNOWN, a BETWEEN SYMMETRIC 2 AND 1 FROM t
SELECT a FROM t WHERE a = ANY ('{1,2}'::int[]) OR a = SOME (SELECT b FROM u)
SELECT a FROM t WHERE (a, b) = (SELECT 1, 2) AND NOT a IN (1)
SELECT CASE WHEN (a) THEN (b) ELSE (c) END FROM t
SELECT count(*), count(a), count(DISTINCT (a, b)), sum(DISTINCT a) FILTER (WHERE b) OVER () FROM t
SELECT rank() OVER (PARTITION BY a, b ORDER BY c DESC NULLS LAST), dense_rank() OVER w FROM t WINDOW w AS (ORDER BY d)
SELECT sum(a) OVER (ORDER BY b GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) FROM t
SELECT lag(a, 2, 0) OVER (ORDER BY b), first_value(a) OVER (ORDER BY b) FROM t
SELECT a, b FROM t GROUP BY DISTINCT ROLLUP (a, b), CUBE (c)
SELECT a FROM t GROUP BY a HAVING bool_or(b) AND max(c) > 1 ORDER BY a
SELECT * FROM a, b, LATERAL (SELECT * FROM c WHERE c.id = a.id) d
SELECT * FROM a LEFT JOIN LATERAL unnest(a.tags) AS tag ON true
SELECT * FROM a INNER JOIN b USING (id) RIGHT JOIN c ON c.id = b.id FULL JOIN d ON (true) CROSS JOIN e NATURAL LEFT JOIN f
SELECT * FROM (a JOIN b ON a.id = b.id) JOIN c ON c.id = a.id
SELECT * FROM ONLY parent
SELECT * FROM t TABLESAMPLE SYSTEM (1.5) REPEATABLE (42)
SELECT * FROM generate_series(1, 10, 2) AS g(n)
SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3)) AS x(a, b)
SELECT * FROM jsonb_to_recordset('[{"a": 1}]'::jsonb) AS x(a int, b text)
SELECT * FROM jsonb_each('{"a": 1}'), jsonb_object_keys('{"a": 1}') AS k
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(n, s)
SELECT * FROM regexp_matches('a1b2', '[a-z](\d)', 'g') AS m(found)
WITH a AS (SELECT 1), b AS (SELECT 2) SELECT * FROM a, b
WITH a AS NOT MATERIALIZED (SELECT 1 AS x) SELECT x FROM a
WITH a AS (WITH b AS (SELECT 1 AS x) SELECT x FROM b) SELECT x FROM a
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t
SELECT 1 UNION SELECT 2 UNION ALL SELECT 3 INTERSECT SELECT 4 EXCEPT ALL SELECT 5
(SELECT a FROM t ORDER BY a LIMIT 1) UNION ALL (SELECT a FROM u ORDER BY a LIMIT 1)
SELECT a FROM t ORDER BY 1 DESC NULLS FIRST, lower(b) COLLATE "C" LIMIT 10 OFFSET 5
SELECT a FROM t LIMIT ALL
SELECT a FROM t FETCH NEXT 5 ROWS WITH TIES
SELECT substring(a FROM '\d+'), substring(a, 1, 2), trim(LEADING 'x' FROM a), position('a' IN b), overlay(a PLACING 'b' FROM 1) FROM t
SELECT extract(year FROM d), extract('month' FROM d), date_part('day', d), date_trunc('hour', d, 'Asia/Seoul') FROM t
SELECT d AT TIME ZONE 'UTC', current_date - 7, now() - interval '7 days', localtimestamp(0) FROM t
SELECT to_char(d, 'YYYY"年"MM"月"'), to_char(n, 'FM999,990.00'), to_number('1,5', '9D9') FROM t
SELECT coalesce(a, b, 0), nullif(a, ''), greatest(a, b), least(1, 2, 3), num_nulls(a, b) FROM t
SELECT string_agg(a, ', ' ORDER BY a DESC), json_agg(t), jsonb_agg(DISTINCT b), json_object_agg(a, b) FROM t
SELECT percentile_cont(array[0.1, 0.9]) WITHIN GROUP (ORDER BY a DESC), rank(5) WITHIN GROUP (ORDER BY a) FROM t
SELECT host(ip), masklen(ip), ip << inet '10.0.0.0/8', network(ip), family(ip), trunc(mac) FROM t
SELECT tstzrange(a, b, '[)') @> now(), lower(r), upper_inf(r), range_agg(r) FROM t GROUP BY r
SELECT to_tsvector('english', a) @@ plainto_tsquery('cat'), ts_rank(to_tsvector(a), to_tsquery('cat')) FROM t
SELECT md5(a), encode(sha256(convert_to(a, 'UTF8')), 'hex'), hashtext(a), gen_random_uuid() FROM t
SELECT pg_catalog.count(*), pg_catalog.now(), pg_catalog.format('%s', 1)
SELECT "lower"(a), "Upper" FROM t
SELECT Count(*), COUNT(*), cOuNt(*) FROM t
SELECT count  (*), lower	('A'), upper(/* nothing */ 'a') FROM t
SELECT naïve, größe, 온도 FROM измерения
SELECT a$b, _c FROM t$1
SELECT point(1, 2) <-> point(3, 4), box(point(0, 0), point(1, 1)), area(circle(point(0, 0), 1))
SELECT width_bucket(a, 0, 100, 10), div(a, 2), mod(a, 2), a % 2, a ^ 2, |/ a, ||/ a, @ a, ~ a, a # b FROM t
SELECT DISTINCT ON (a, b) a, b, c FROM t ORDER BY a, b, c
SELECT ALL a FROM t
SELECT a FROM t WHERE a IN (:index_values) AND b NOT IN (:index_values)
WITH x AS (SELECT a FROM t WHERE a IN ( :index_values )) SELECT * FROM x
SELECT EXISTS (SELECT 1 FROM t), NOT EXISTS (SELECT FROM t), array(SELECT a FROM t)
SELECT exists(SELECT 1), (SELECT max(a) FROM t) AS m
SELECT json_build_object('a', 1, 'b', array[1, 2]), row_to_json(t), to_jsonb(t) - 'secret' FROM t
SELECT jsonb_path_query(a, '$.b[*] ? (@.c > $x)', '{"x": 1}') FROM t
SELECT date_bin('5 minutes', d, timestamp '2001-01-01'), make_interval(mins => 5), age(d) FROM t
