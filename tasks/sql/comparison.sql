SELECT *
FROM comparison
WHERE $experiment IS NULL OR experiment = $experiment
ORDER BY experiment, is_primary DESC, model, arm, metric, k;
