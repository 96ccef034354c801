-- Rankings of Parquet with one row per user: `items`, best first.
SELECT
    row, split, user_id, unnest(items) AS item_id, -generate_subscripts(items, 1) AS score,
    NULL AS fault
FROM file
