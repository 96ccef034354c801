-- One row of what interactions hold, before or after filters.
SELECT
    count(*), count(DISTINCT user_id), count(DISTINCT item_id),
    count(rating), min(rating), max(rating), avg(rating),
    min(timestamp), max(timestamp),
    count(*) - (SELECT count(*) FROM (SELECT DISTINCT user_id, item_id FROM interactions))
FROM interactions;
