-- The best k items of every user with training interactions; equal scores keep the file's order.
SELECT
    split, user_id, list(item_id ORDER BY rank) AS items, list(score::FLOAT ORDER BY rank) AS scores
FROM (
    SELECT *, row_number() OVER (PARTITION BY split, user_id ORDER BY score DESC, row) AS rank
    FROM given WHERE user_id IN (SELECT user_id FROM train)
)
WHERE rank <= getvariable('k')
GROUP BY split, user_id
ORDER BY split DESC, user_id
