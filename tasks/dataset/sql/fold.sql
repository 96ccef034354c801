-- Drops folded into a data set: the newest interaction of each pair, of equally new ones the last;
-- one without a time is older than any with one. Table: interactions, the data set's rows first,
-- with `place` from 0. Variable: known, how many rows the data set has.
SELECT
    user_id,
    item_id,
    rating,
    timestamp,
    min(place) OVER pair >= getvariable('known') AS is_new,
    NOT is_new AND (
        rating IS DISTINCT FROM first(rating) OVER pair
        OR timestamp IS DISTINCT FROM first(timestamp) OVER pair
    ) AS is_newer
FROM interactions
WINDOW pair AS (
    PARTITION BY user_id, item_id ORDER BY place
    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
)
QUALIFY
    row_number() OVER (
        PARTITION BY user_id, item_id ORDER BY timestamp DESC NULLS LAST, place DESC
    ) = 1
ORDER BY user_id, item_id
