-- The runs of an experiment's latest evaluation, once per pool of points that has them, with what
-- must be equal to compare them; `point` is the pool, NULL where the experiment has no points.
SELECT DISTINCT
    points.pool AS point, run_id, dataset, model, arm, seed, split_digest, candidate_items, epochs_budget,
    patience, valid_metric, batch_size, search_trials, alpha, profile_source, profile_provenance, warnings, config
FROM runs
LEFT JOIN points
    ON points.experiment = runs.experiment AND list_contains(points.run_ids, runs.run_id)
WHERE runs.experiment = $experiment AND is_current
ORDER BY points.pool, model, arm, seed;
