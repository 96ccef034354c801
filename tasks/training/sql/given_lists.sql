-- Rankings of Parquet with one row per user: `items`, best first.
SELECT
    row, split::VARCHAR AS split, user_id::VARCHAR AS user_id, unnest(items)::VARCHAR AS item_id,
    -generate_subscripts(items, 1)::DOUBLE AS score, NULL::VARCHAR AS fault
FROM file
