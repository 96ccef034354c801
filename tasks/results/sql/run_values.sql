-- Every user's value on test, ordered so that one metric of one run is a stretch of rows.
SELECT run_id, metric, k, user_id, value
FROM user_metrics
WHERE list_contains($run_ids, run_id)
ORDER BY run_id, metric, k, user_id;
