SELECT * EXCLUDE (experiment)
FROM {table}
WHERE experiment = $experiment
ORDER BY decided_at DESC, rowid;
