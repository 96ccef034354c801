-- The runs of an experiment's latest evaluation, with what must be equal to compare them.
SELECT
    run_id, dataset, model, arm, seed, split_digest, candidate_items, epochs_budget, patience,
    valid_metric, batch_size, search_trials, profile_source, profile_provenance, config,
    point
FROM runs
WHERE experiment = $experiment AND is_current
ORDER BY model, arm, seed;
