-- Ratings and how many there are of each; of more than 20 different ones, ten equal ranges.
WITH bounds AS (
    SELECT
        min(rating) AS low, max(rating) AS high, count(DISTINCT rating) AS n, avg(rating) AS mean
    FROM interactions
)
SELECT
    CASE WHEN n <= 20 THEN rating
        ELSE low + (high - low) / 10 * least(floor((rating - low) / ((high - low) / 10)), 9) END,
    count(*), any_value(n > 20), any_value(mean)
FROM interactions, bounds WHERE rating IS NOT NULL GROUP BY 1 ORDER BY 1;
