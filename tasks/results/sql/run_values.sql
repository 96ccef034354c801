-- Every user's value on test, one row per run, metric and cut-off.
SELECT
    run_id, metric, k, list(user_id ORDER BY user_id) AS users, list(value ORDER BY user_id) AS vals
FROM user_metrics
WHERE list_contains($run_ids, run_id)
GROUP BY run_id, metric, k
ORDER BY run_id, metric, k;
