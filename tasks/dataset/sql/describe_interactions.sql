-- One row that describes the interactions, before or after filters. Times are UTC, ISO 8601.
SELECT
    count(*) AS interactions,
    count(DISTINCT user_id) AS users,
    count(DISTINCT item_id) AS items,
    -- The share of all pairs of a user and an item.
    if(count(*) = 0, 0, count(*) / (count(DISTINCT user_id) * count(DISTINCT item_id))) AS density,
    strftime(make_timestamp(min(timestamp) * 1000000), '%Y-%m-%dT%H:%M:%S+00:00') AS first,
    strftime(make_timestamp(max(timestamp) * 1000000), '%Y-%m-%dT%H:%M:%S+00:00') AS last,
    count(*) - (SELECT count(*) FROM (SELECT DISTINCT user_id, item_id FROM interactions))
        AS repeated
FROM interactions;
