-- Every model and arm on test at one cut-off: a map from METRIC@K to mean, sd and place, which
-- counts means that print alike as one; and the claims of its chain, by verdict.
WITH
measured AS (
    SELECT
        model, arm, runs.point, any_value(epochs_budget) IS NULL AS elsewhere, metric, k,
        avg(value) AS mean, stddev_samp(value) AS sd
    FROM runs JOIN metrics USING (run_id)
    WHERE experiment = $experiment AND is_current AND split = 'test'
        AND k IS NOT DISTINCT FROM $k AND NOT list_contains($beyond, metric)
    GROUP BY ALL
),
placed AS (
    SELECT *, dense_rank() OVER (
        PARTITION BY metric ORDER BY round(CASE WHEN metric = 'logloss' THEN mean ELSE -mean END, 4)
    ) AS place
    FROM measured
),
claimed AS (
    SELECT
        model, arm, point,
        string_agg(DISTINCT claim, ',' ORDER BY claim) FILTER (verdict = 'better') AS above,
        coalesce(bool_or(verdict = 'worse'), false) AS below
    FROM contrasts WHERE experiment = $experiment AND claim IS NOT NULL
    GROUP BY ALL
)
SELECT
    placed.model, placed.arm, placed.point, elsewhere, above, below,
    map(list(metric), list({'mean': mean, 'sd': sd, 'place': place})) AS cells
FROM placed LEFT JOIN claimed
    ON claimed.model = placed.model AND claimed.arm = placed.arm
    AND claimed.point IS NOT DISTINCT FROM placed.point
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY placed.model, placed.point, placed.arm <> $first, placed.arm
