"""The functions that a query may call, by dialect, and the words that may stand before `(`.

A function is here when it computes from its arguments and nothing else: it reads no file and no
setting, waits for nothing, connects to nothing, runs no SQL that is handed to it as text, and
changes nothing. What is not listed is refused, so a new server version opens no hole.
"""

_COMMON = """
abs acos asin atan atan2 ceil ceiling cos cot degrees exp floor ln log log10 log2 mod pi power pow
radians round sign sin sqrt tan
ascii char_length character_length bit_length octet_length concat concat_ws left right length lower
upper lpad rpad ltrim rtrim trim repeat replace reverse position substring substr format md5
coalesce nullif greatest least cast extract
count sum avg min max stddev stddev_pop stddev_samp variance var_pop var_samp bit_and bit_or bit_xor
row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
grouping
date now current_date current_time current_timestamp localtime localtimestamp
regexp_replace regexp_substr regexp_instr regexp_like
json_object json_array json_value json_query json_exists json_table
"""

_POSTGRESQL = """
acosd acosh asind asinh atand atan2d atanh cbrt cosd cosh cotd div erf erfc factorial gcd lcm
min_scale scale sind sinh tand tanh trim_scale trunc width_bucket random random_normal gamma lgamma
btrim casefold chr convert_from convert_to decode encode initcap normalize overlay parse_ident
quote_ident quote_literal quote_nullable regexp_count regexp_match regexp_matches
regexp_split_to_array regexp_split_to_table split_part starts_with string_to_array string_to_table
strpos to_ascii to_bin to_hex to_oct translate unistr sha224 sha256 sha384 sha512 hashtext
hashtextextended bit_count get_bit get_byte set_bit set_byte crc32 crc32c
levenshtein levenshtein_less_equal soundex difference metaphone dmetaphone unaccent similarity
word_similarity strict_word_similarity
to_char to_date to_number to_timestamp
age clock_timestamp date_add date_bin date_part date_subtract date_trunc isfinite justify_days
justify_hours justify_interval make_date make_interval make_time make_timestamp make_timestamptz
statement_timestamp timeofday transaction_timestamp timezone overlaps
num_nonnulls num_nulls
array array_agg array_append array_cat array_dims array_fill array_length array_lower array_ndims
array_position array_positions array_prepend array_remove array_replace array_reverse array_sample
array_shuffle array_sort array_to_string array_upper cardinality trim_array unnest generate_series
generate_subscripts any_value any all some
every bool_and bool_or string_agg json_agg json_agg_strict json_arrayagg json_object_agg
json_object_agg_strict json_object_agg_unique json_objectagg jsonb_agg jsonb_agg_strict
jsonb_object_agg jsonb_object_agg_strict jsonb_object_agg_unique range_agg range_intersect_agg
corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx
regr_sxy regr_syy mode percentile_cont percentile_disc
to_json to_jsonb row_to_json array_to_json json json_scalar json_serialize json_build_array
json_build_object jsonb_build_array jsonb_build_object jsonb_object json_array_elements
json_array_elements_text jsonb_array_elements jsonb_array_elements_text json_array_length
jsonb_array_length json_each json_each_text jsonb_each jsonb_each_text json_extract_path
json_extract_path_text jsonb_extract_path jsonb_extract_path_text json_object_keys
jsonb_object_keys json_populate_record jsonb_populate_record json_populate_recordset
jsonb_populate_recordset json_to_record jsonb_to_record json_to_recordset jsonb_to_recordset
json_strip_nulls jsonb_strip_nulls jsonb_set jsonb_set_lax jsonb_insert jsonb_path_exists
jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first
jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_tz jsonb_path_query_array_tz
jsonb_path_query_first_tz jsonb_pretty json_typeof jsonb_typeof jsonb_contains jsonb_exists
lower_inc upper_inc lower_inf upper_inf isempty range_merge multirange int4range int8range numrange
tsrange tstzrange daterange int4multirange int8multirange nummultirange tsmultirange
tstzmultirange datemultirange
abbrev broadcast family host hostmask inet_merge inet_same_family masklen netmask network
set_masklen macaddr8_set7bit
area center diagonal diameter height isclosed isopen npoints pclose popen radius slope width
point box circle line lseg path polygon bound_box
to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd
ts_headline array_to_tsvector tsvector_to_array numnode querytree setweight strip
gen_random_uuid uuidv4 uuidv7 uuid_extract_timestamp uuid_extract_version
pg_typeof version row
text varchar bpchar name int2 int4 int8 float4 float8 bool uuid timestamptz timetz jsonb
"""

_MYSQL = """
bin bit_count bit_length char conv crc32 div hex unhex oct ord rand truncate
elt export_set field find_in_set insert instr lcase ucase locate make_set mid quote soundex space
strcmp substring_index to_base64 from_base64 weight_string format_bytes natural_sort_key
regexp_instr regexp_substr sformat lengthb sha sha1 sha2
adddate addtime convert_tz curdate curtime utc_date utc_time utc_timestamp date_add date_format
date_sub datediff day dayname dayofmonth dayofweek dayofyear from_days from_unixtime get_format
hour last_day makedate maketime microsecond minute month monthname period_add period_diff quarter
sec_to_time second str_to_date subdate subtime sysdate time time_format time_to_sec timediff
timestamp timestampadd timestampdiff to_days to_seconds unix_timestamp week weekday weekofyear year
yearweek add_months months_between to_char to_date to_number trunc
if ifnull isnull nvl nvl2 decode interval values
group_concat std any_value json_arrayagg json_objectagg median percentile_cont percentile_disc
convert binary inet_aton inet_ntoa inet6_aton inet6_ntoa is_ipv4 is_ipv6 is_ipv4_compat
is_ipv4_mapped is_uuid uuid_to_bin bin_to_uuid uuid
json_array_append json_array_insert json_contains json_contains_path json_depth json_extract
json_insert json_keys json_length json_merge json_merge_patch json_merge_preserve json_overlaps
json_pretty json_quote json_remove json_replace json_schema_valid json_search json_set
json_storage_size json_type json_unquote json_valid json_compact json_detailed json_equals
json_loose json_normalize json_array_intersect json_object_filter_keys json_object_to_array
match against version chr
st_area st_astext st_aswkt st_centroid st_contains st_distance st_distance_sphere st_equals
st_geomfromtext st_intersects st_latitude st_length st_longitude st_pointfromtext st_within
st_x st_y point
"""

# Words of the grammar, types with a length among them. None of them can be called.
_WORDS = """
ALL AND ANY AS BETWEEN BY CASE CUBE DISTINCT ELSE ESCAPE EXCEPT EXISTS FETCH FILTER FIRST FROM
GROUP HAVING IN INTERSECT IS JOIN LATERAL LIKE LIMIT MATERIALIZED NEXT NOT OFFSET ON OR OVER
PARTITION RANGE ROLLUP ROW ROWS SELECT SETS SOME THEN UNION USING VALUES WHEN WHERE WINDOW WITH
COLUMNS RETURN END
BIT CHAR CHARACTER DEC DECIMAL DOUBLE FLOAT INTEGER INT NCHAR NUMERIC PRECISION REAL TIME TIMESTAMP
VARBINARY VARCHAR VARYING
"""
_WORDS_OF = {
    "postgresql": "ARRAY BERNOULLI BPCHAR FOR ILIKE INTERVAL ORDINALITY REPEATABLE SIMILAR SYSTEM TO "
    "TIMESTAMPTZ TIMETZ VARBIT CHECK GROUPS KEEP ISNULL NOTNULL",
    "mysql": "BINARY DIV DUAL INDEX KEY MEMBER OF MOD REGEXP RLIKE SEPARATOR SIGNED UNSIGNED XOR "
    "INTERVAL DATETIME STRAIGHT_JOIN",
}

FUNCTIONS = {
    "postgresql": frozenset((_COMMON + _POSTGRESQL).split()),
    "mysql": frozenset((_COMMON + _MYSQL).split()),
}
SYNTAX = {
    dialect: frozenset(_WORDS.split()) | frozenset(words.split())
    for dialect, words in _WORDS_OF.items()
}
