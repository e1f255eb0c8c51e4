-- Queries as analysts write them, a paragraph each, over the tables that tests/test_sql_corpus.py
-- makes. Each runs as it stands and as it is rendered, and gives the same.

SELECT DISTINCT mac_address FROM user_ap_trajectory ORDER BY mac_address

SELECT mac_address, COUNT(*), MIN(start_time), MAX(end_time) FROM user_ap_trajectory GROUP BY mac_address ORDER BY 1

-- hours on campus per device
SELECT mac_address, SUM(TIMESTAMPDIFF(SECOND, start_time, end_time)) / 3600 AS hours /* in hours */
FROM user_ap_trajectory GROUP BY mac_address HAVING COUNT(*) > 1 ORDER BY hours DESC, mac_address # the longest first

SELECT mac_address, COUNT(DISTINCT DATE(start_time)) AS days FROM user_ap_trajectory GROUP BY 1 ORDER BY 1

SELECT mac_address, start_time, LAG(end_time) OVER w AS `before`, TIMESTAMPDIFF(MINUTE, LAG(end_time) OVER w, start_time) > 60 AS gap
FROM user_ap_trajectory WINDOW w AS (PARTITION BY mac_address ORDER BY start_time) ORDER BY 1, 2

SELECT t.*, ROW_NUMBER() OVER (PARTITION BY mac_address ORDER BY start_time DESC) AS `rank` FROM user_ap_trajectory t ORDER BY mac_address, `rank`

SELECT mac_address, PERCENT_RANK() OVER (ORDER BY `signal`), NTILE(3) OVER (ORDER BY `signal`, start_time), CUME_DIST() OVER (ORDER BY `signal`)
FROM user_ap_trajectory ORDER BY `signal`, start_time

SELECT start_time, AVG(`signal`) OVER (ORDER BY start_time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS smooth FROM user_ap_trajectory ORDER BY start_time, `signal`

SELECT FIRST_VALUE(space_id) OVER (PARTITION BY mac_address ORDER BY start_time), LEAD(space_id, 1) OVER (PARTITION BY mac_address ORDER BY start_time),
       NTH_VALUE(space_id, 2) OVER (PARTITION BY mac_address ORDER BY start_time) FROM user_ap_trajectory ORDER BY mac_address, start_time

WITH daily AS (
    SELECT mac_address, DATE(start_time) AS day, COUNT(*) AS n FROM user_ap_trajectory GROUP BY mac_address, day
), busiest AS (SELECT mac_address, MAX(n) AS most FROM daily GROUP BY mac_address)
SELECT d.mac_address, d.day, d.n FROM daily d JOIN busiest b ON b.mac_address = d.mac_address AND b.most = d.n ORDER BY 1, 2

WITH RECURSIVE below AS (
    SELECT space_id, name, 0 AS depth FROM space WHERE parent_space_id IS NULL
    UNION ALL
    SELECT s.space_id, s.name, below.depth + 1 FROM space s JOIN below ON s.parent_space_id = below.space_id
)
SELECT depth, COUNT(*), GROUP_CONCAT(name ORDER BY name SEPARATOR ' / ') FROM below GROUP BY depth ORDER BY depth

WITH RECURSIVE hours(h) AS (SELECT 0 UNION ALL SELECT h + 1 FROM hours WHERE h < 23)
SELECT h, COUNT(t.mac_address) FROM hours LEFT JOIN user_ap_trajectory t ON HOUR(t.start_time) = h GROUP BY h ORDER BY h

SELECT floor, name, SUM(capacity) FROM space GROUP BY floor, name WITH ROLLUP

SELECT SUM(HOUR(start_time) BETWEEN 9 AND 17) AS at_day, SUM(DAYOFWEEK(start_time) IN (1, 7)) AS at_weekend FROM user_ap_trajectory

SELECT DISTINCT MEDIAN(`signal`) OVER (PARTITION BY mac_address), PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY `signal`) OVER (PARTITION BY mac_address) FROM user_ap_trajectory ORDER BY 1

SELECT STDDEV(`signal`), STDDEV_POP(`signal`), STD(`signal`), VARIANCE(`signal`), VAR_SAMP(`signal`), STDDEV_SAMP(`signal`) FROM user_ap_trajectory

SELECT mac_address, GROUP_CONCAT(DISTINCT space_id ORDER BY space_id SEPARATOR ',') FROM user_ap_trajectory GROUP BY mac_address ORDER BY 1

SELECT id, JSON_EXTRACT(payload, '$.kind'), JSON_UNQUOTE(JSON_EXTRACT(payload, '$.kind')), JSON_VALUE(payload, '$.detail.level'), JSON_QUERY(payload, '$.detail') FROM events ORDER BY id

SELECT id FROM events WHERE JSON_CONTAINS(payload, '"door"', '$.kind') AND JSON_CONTAINS_PATH(payload, 'one', '$.detail', '$.x') ORDER BY id

SELECT id, JSON_LENGTH(payload), JSON_KEYS(payload), JSON_TYPE(payload), JSON_DEPTH(payload), JSON_VALID(payload), JSON_SEARCH(payload, 'one', 'a') FROM events ORDER BY id

SELECT id, JSON_SET(payload, '$.x', 1), JSON_REMOVE(payload, '$.detail'), JSON_ARRAY_APPEND(payload, '$.detail.tags', 'z'), JSON_MERGE_PATCH(payload, '{"a": 1}') FROM events ORDER BY id

SELECT e.id, t.tag FROM events e, JSON_TABLE(e.payload, '$.detail.tags[*]' COLUMNS (tag VARCHAR(20) PATH '$')) AS t ORDER BY 1, 2

SELECT JSON_VALUE(payload, '$.kind') AS kind, JSON_ARRAYAGG(id ORDER BY id), JSON_OBJECT('n', COUNT(*)), JSON_OBJECTAGG(id, 1) FROM events GROUP BY kind ORDER BY kind

SELECT JSON_ARRAY(1, 'a', NULL), JSON_QUOTE('x"y'), JSON_COMPACT('{"a": 1}'), JSON_EXISTS('{"a": 1}', '$.a')

SELECT name FROM space WHERE name REGEXP '^R[0-9]+$' OR name RLIKE 'hall' OR name NOT REGEXP '[a-z]' ORDER BY name

SELECT name, REGEXP_REPLACE(name, '([A-Z])([0-9]+)', '\\2-\\1'), REGEXP_SUBSTR(name, '[0-9]+'), REGEXP_INSTR(name, '[0-9]') FROM space ORDER BY name

SELECT name, UPPER(name), LOWER(name), UCASE(name), LENGTH(name), CHAR_LENGTH(name), REVERSE(name), LEFT(name, 2), RIGHT(name, 2), MID(name, 2, 2) FROM space ORDER BY 1

SELECT LOCATE('a', name), INSTR(name, 'a'), POSITION('a' IN name), SUBSTR(name, 2, 3), SUBSTRING(name FROM 2 FOR 3), SUBSTRING_INDEX(name, ' ', 1), INSERT(name, 1, 2, 'XX'), FIELD(name, 'R101', 'R102'), FIND_IN_SET('b', 'a,b'), ELT(2, 'a', 'b') FROM space ORDER BY name

SELECT LPAD(name, 12, '.'), RPAD(name, 12, '.'), TRIM(BOTH 'R' FROM name), LTRIM(name), REPEAT('ab', 2), REPLACE(name, 'R', 'S'), MD5(name), SHA1(name), SHA2(name, 256), CONCAT_WS('-', name, NULL, floor), SPACE(2), QUOTE(name), SOUNDEX(name) FROM space ORDER BY name

SELECT CONCAT(name, ' (', capacity, ')'), FORMAT(capacity * 1000, 2), HEX(capacity), CONV(capacity, 10, 2), BIN(5), OCT(9), ASCII('a'), CHAR(65 USING utf8mb4), ORD('a') FROM space ORDER BY name

SELECT name LIKE '%hall%', name LIKE 'R|_%' ESCAPE '|', name NOT LIKE '%x%', STRCMP(name, 'R'), name = BINARY 'R101' FROM space ORDER BY name

SELECT start_time + INTERVAL 90 MINUTE, start_time - INTERVAL 1 DAY, DATE_ADD(start_time, INTERVAL '1:30' HOUR_MINUTE), DATE_SUB(DATE(start_time), INTERVAL 1 MONTH), DATEDIFF(end_time, start_time), ADDDATE(start_time, 3) FROM user_ap_trajectory ORDER BY start_time

SELECT YEAR(start_time), MONTH(start_time), DAY(start_time), HOUR(start_time), MINUTE(start_time), DAYNAME(start_time), WEEKDAY(start_time), DAYOFYEAR(start_time), WEEK(start_time, 3), YEARWEEK(start_time), QUARTER(start_time) FROM user_ap_trajectory ORDER BY start_time

SELECT EXTRACT(HOUR FROM start_time), EXTRACT(YEAR_MONTH FROM start_time), DATE_FORMAT(start_time, '%Y-%m-%d %H:%i'), UNIX_TIMESTAMP(start_time), FROM_UNIXTIME(1700000000), STR_TO_DATE('01.03.2024', '%d.%m.%Y'), LAST_DAY(start_time), TO_DAYS(start_time) FROM user_ap_trajectory ORDER BY start_time

SELECT CONVERT_TZ(start_time, '+00:00', '+09:00'), MAKEDATE(2024, 60), TIMESTAMPADD(HOUR, 2, start_time), TIME_TO_SEC(TIMEDIFF(end_time, start_time)), DATE '2024-02-29', TIMESTAMP '2024-02-29 10:00:00', TIMESTAMP(DATE(start_time)) FROM user_ap_trajectory ORDER BY start_time

SELECT FROM_UNIXTIME(FLOOR(UNIX_TIMESTAMP(start_time) / 900) * 900) AS quarter_hour, COUNT(*) FROM user_ap_trajectory GROUP BY quarter_hour ORDER BY quarter_hour

SELECT CASE WHEN `signal` > -50 THEN 'near' WHEN `signal` > -70 THEN 'far' ELSE 'away' END AS band, COUNT(*) FROM user_ap_trajectory GROUP BY band ORDER BY band

SELECT CASE floor WHEN 1 THEN 'ground' WHEN 2 THEN 'first' END, NULLIF(capacity, 0), COALESCE(parent_space_id, -1), IFNULL(parent_space_id, 0), IF(floor > 1, 'up', 'down'), GREATEST(capacity, 20), LEAST(floor, 2), ISNULL(parent_space_id) FROM space ORDER BY name

SELECT capacity / 7, capacity DIV 7, capacity MOD 7, capacity % 7, POW(capacity, 2), capacity & 3, capacity | 1, capacity ^ 1, capacity << 1, -capacity, NOT capacity, floor XOR 1, !floor FROM space ORDER BY name

SELECT CAST('5' AS SIGNED), CAST('5' AS UNSIGNED), CAST(1.55 AS DECIMAL(4, 1)), CAST('2024-01-01' AS DATE), CAST('2024-01-01 10:00' AS DATETIME), CAST(5 AS CHAR), CONVERT('x' USING utf8mb4), CONVERT('7', SIGNED), CAST('1.5' AS DOUBLE), 0xFF + 0, 1e3

SELECT ROUND(`signal` / 3, 2), TRUNCATE(-1.55, 1), CEIL(1.2), CEILING(1.2), FLOOR(1.8), ABS(`signal`), SIGN(`signal`), MOD(7, 3), POWER(2, 10), SQRT(16), LN(10), LOG(2, 8), LOG10(100), LOG2(8), EXP(1), PI(), CRC32('x') FROM user_ap_trajectory ORDER BY start_time

SELECT mac_address FROM user_ap_trajectory WHERE space_id = 3 UNION SELECT mac_address FROM user_ap_trajectory WHERE space_id = 4 ORDER BY 1

SELECT mac_address FROM user_ap_trajectory WHERE `signal` > -60 EXCEPT SELECT mac_address FROM user_ap_trajectory WHERE space_id = 4 ORDER BY 1

SELECT space_id FROM space INTERSECT SELECT space_id FROM user_ap_trajectory ORDER BY 1

SELECT s.name FROM space s WHERE NOT EXISTS (SELECT 1 FROM user_ap_trajectory t WHERE t.space_id = s.space_id) ORDER BY 1

SELECT name FROM space WHERE space_id IN (SELECT space_id FROM user_ap_trajectory) AND (floor, capacity) IN ((1, 30), (2, 10)) ORDER BY name

SELECT name FROM space WHERE capacity > ALL (SELECT 5) AND parent_space_id <=> 1 AND (capacity > 10) IS TRUE ORDER BY capacity DESC LIMIT 2 OFFSET 1

SELECT name FROM space ORDER BY space_id LIMIT 1, 2

SELECT a.mac_address, b.mac_address, COUNT(*) FROM user_ap_trajectory a JOIN user_ap_trajectory b
  ON a.space_id = b.space_id AND a.mac_address < b.mac_address AND a.start_time < b.end_time AND b.start_time < a.end_time
GROUP BY 1, 2 ORDER BY 1, 2

SELECT * FROM space NATURAL JOIN (SELECT space_id, COUNT(*) AS visits FROM user_ap_trajectory GROUP BY space_id) v ORDER BY space_id

SELECT t.mac_address AS "Device", s.name AS 'Room', s.`floor` AS `Naïve ``Floor``` FROM user_ap_trajectory t RIGHT OUTER JOIN space s ON s.space_id = t.space_id ORDER BY 1, 2

SELECT STRAIGHT_JOIN s.name, t.`signal` FROM space s JOIN user_ap_trajectory t USING (space_id) WHERE t.`signal` < -60 ORDER BY t.start_time

SELECT SQL_NO_CACHE COUNT(*) FROM space FORCE INDEX (PRIMARY) WHERE space_id > 1

SELECT BIT_OR(space_id), BIT_AND(space_id), BIT_XOR(space_id), MAX(mac_address) FROM user_ap_trajectory WHERE 1 = 0 OR 1 = 1 GROUP BY NULL

SELECT CURRENT_DATE = CURDATE(), NOW() >= CURRENT_TIMESTAMP, UTC_DATE() = DATE(UTC_TIMESTAMP()), CURRENT_TIMESTAMP() >= SYSDATE() - INTERVAL 1 DAY

SELECT 'it''s', "double ""quoted""", 'tab\tnew\nline', N'national', x'41' + 0

SELECT 1 + 1, 5--1, 'x' = 'X', 'a' <=> NULL, NULL IS NULL, 3 BETWEEN 1 AND 5, 1 <> 2, 2 != 3, TRUE, FALSE FROM DUAL

SELECT INET_ATON('10.0.0.1'), INET_NTOA(167772161), INET6_NTOA(INET6_ATON('::1')), IS_IPV4('10.0.0.1'), UNHEX(HEX('a')) = 'a', TO_BASE64('abc'), FROM_BASE64('YWJj') = 'abc'

SELECT mac_address, space_id, MIN(start_time), MAX(end_time) FROM (
    SELECT t.*, SUM(fresh) OVER (PARTITION BY mac_address ORDER BY start_time) AS island FROM (
        SELECT u.*, NOT (LAG(space_id) OVER (PARTITION BY mac_address ORDER BY start_time) <=> space_id) AS fresh FROM user_ap_trajectory u
    ) t
) islands GROUP BY mac_address, space_id, island ORDER BY 1, 3

SELECT x.n, y.n FROM (SELECT 1 AS n UNION ALL SELECT 2) x CROSS JOIN (SELECT 10 AS n UNION ALL SELECT 20) AS y ORDER BY 1, 2

SELECT s.name, (SELECT COUNT(*) FROM user_ap_trajectory t WHERE t.space_id = s.space_id) AS visits, (SELECT name FROM space p WHERE p.space_id = s.parent_space_id) AS parent FROM space s ORDER BY s.name

SELECT DATE(start_time) AS day, mac_address, SUM(COUNT(*)) OVER (PARTITION BY mac_address ORDER BY DATE(start_time)) AS running FROM user_ap_trajectory GROUP BY day, mac_address ORDER BY day, mac_address
