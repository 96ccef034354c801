-- Grain: one user and rank: what was ranked for, and for all others the most popular items that
-- they do not know. The schema is RECOMMENDATIONS.
WITH others AS (
    SELECT user_id, coalesce(n_known, 0) AS n_known
    FROM users
    LEFT JOIN (SELECT user_id, count(*) AS n_known FROM interactions GROUP BY user_id)
        USING (user_id)
    WHERE user_id NOT IN (SELECT user_id FROM rankings)
),
offered AS (
    SELECT user_id, item_id, score, place
    FROM others
    JOIN popular ON place <= getvariable('k') + n_known
    ANTI JOIN interactions USING (user_id, item_id)
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY place) AS rank FROM offered
)
SELECT user_id, CAST(rank AS INTEGER) AS rank, item_id, score, 'popular' AS source
FROM ranked
WHERE rank <= getvariable('k')
UNION ALL
SELECT
    user_id,
    CAST(unnest(range(1, len(items) + 1)) AS INTEGER),
    unnest(items),
    unnest(scores),
    source
FROM rankings
ORDER BY user_id, rank;
