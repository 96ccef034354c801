-- Grain: one row: whom the lists serve, and how wide they are. The head are the fewest items that
-- hold their share of the interactions.
WITH head AS (
    SELECT item_id
    FROM popular
    QUALIFY sum(score) OVER (ORDER BY place) - score
        < getvariable('head') * sum(score) OVER () - 1e-6
)
SELECT
    (SELECT count(*) FROM users) AS users_known,
    count(DISTINCT user_id) AS users_served,
    count(DISTINCT user_id) FILTER (source = 'model') AS users_by_model,
    count(DISTINCT item_id) / (SELECT count(*) FROM items) AS coverage,
    coalesce(avg(CAST(item_id NOT IN (FROM head) AS INTEGER)), 0) AS tail_share
FROM lists;
