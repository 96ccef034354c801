SELECT * EXCLUDE (experiment)
FROM promotions
WHERE experiment = $experiment
ORDER BY decided_at DESC;
