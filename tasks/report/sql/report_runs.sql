-- An evaluation's runs with what they are worth on test, best models first; coverage and novelty
-- are NULL where likes are predicted.
SELECT
    run_id, point, model, arm, alignment, reduction, layer, alpha, seed, epochs_budget, epochs_run,
    best_epoch, train_seconds, config,
    any_value(value) FILTER (metrics.metric = $metric AND k IS NOT DISTINCT FROM $k) AS value,
    any_value(value) FILTER (metrics.metric = 'coverage' AND k = $k) AS coverage,
    any_value(value) FILTER (metrics.metric = 'novelty' AND k = $k) AS novelty
FROM runs
JOIN metrics USING (run_id)
WHERE list_contains($run_ids, run_id) AND split = 'test'
GROUP BY ALL
ORDER BY model, arm, seed;
