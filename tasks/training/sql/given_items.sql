-- Rankings of Parquet with one row per user and item, by score.
SELECT
    row, split::VARCHAR AS split, user_id::VARCHAR AS user_id, item_id::VARCHAR AS item_id,
    score::DOUBLE AS score, NULL::STRUCT(field VARCHAR, value VARCHAR, why VARCHAR) AS fault
FROM file
