-- A TREC run, of the test part: user Q0 item rank score name. The score ranks, as in trec_eval.
SELECT
    row, 'test' AS split, value[1] AS user_id, value[3] AS item_id,
    try_cast(value[5] AS DOUBLE) AS score,
    CASE WHEN len(value) <> 6 THEN {
        'field': 'line', 'value': line,
        'why': 'is no line of a TREC run: six values, user Q0 item rank score name. Write them, or Parquet.'
    } END AS fault
FROM (SELECT row, line, string_split_regex(trim(line), '\s+') AS value FROM file)
