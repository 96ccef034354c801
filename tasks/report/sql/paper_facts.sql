-- What a paragraph on methods says of an experiment's trainings, in one row.
SELECT
    list(run_id ORDER BY run_id) AS run_ids,
    any_value(config) AS config,
    any_value(dataset) AS dataset,
    count(DISTINCT split_digest) AS splits,
    count(DISTINCT seed) AS seeds,
    min(epochs_budget) AS least,
    max(epochs_budget) AS epochs,
    max(patience) AS patience,
    any_value(valid_metric) FILTER (valid_metric IS NOT NULL) AS valid_metric,
    max(candidate_items) AS items,
    max(search_trials) AS trials,
    list(DISTINCT model ORDER BY model) FILTER (epochs_budget IS NULL) AS elsewhere,
    list(DISTINCT profile_source ORDER BY profile_source) FILTER (profile_source IS NOT NULL) AS sources,
    list(DISTINCT llm_model ORDER BY llm_model) FILTER (llm_model IS NOT NULL) AS llms,
    list(DISTINCT embedding_model ORDER BY embedding_model) FILTER (embedding_model IS NOT NULL) AS embeddings,
    list(DISTINCT profile_provenance ORDER BY profile_provenance) FILTER (profile_provenance IS NOT NULL) AS provenance,
    any_value(git_sha) AS git_sha,
    (SELECT max(users) FROM contrasts WHERE experiment = $experiment) AS users,
    (SELECT any_value(family) FROM contrasts WHERE experiment = $experiment) AS family,
    (
        SELECT count(DISTINCT (model, arm, point))
        FROM contrasts WHERE experiment = $experiment AND claim IS NOT NULL
    ) AS chains
FROM runs WHERE experiment = $experiment AND is_current
