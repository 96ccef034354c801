-- Grain: one item of the catalogue; its place by popularity, and its share of the users.
SELECT
    item_id,
    CAST(count(user_id) / (SELECT count(DISTINCT user_id) FROM interactions) AS FLOAT) AS score,
    row_number() OVER (ORDER BY count(user_id) DESC, item_id) AS place
FROM items
LEFT JOIN interactions USING (item_id)
GROUP BY item_id
ORDER BY place;
