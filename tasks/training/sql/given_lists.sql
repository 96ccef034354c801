-- Rankings of Parquet with one row per user: `items`, best first.
SELECT
    row, split::VARCHAR AS split, user_id::VARCHAR AS user_id, unnest(items)::VARCHAR AS item_id,
    -generate_subscripts(items, 1)::DOUBLE AS score,
    CASE WHEN count(*) OVER (PARTITION BY split, user_id) > 1
        THEN {'field': 'user_id', 'value': user_id::VARCHAR, 'why': 'has more than one row. Keep one list of each user.'} END AS fault
FROM file
