-- Rankings of Parquet with one row per user and item, by score.
SELECT row, split, user_id, item_id, score, NULL AS fault FROM file
