-- The runs of every point of an experiment's latest evaluation that has any.
SELECT point, run_ids FROM points
WHERE experiment = $experiment AND len(run_ids) > 0
ORDER BY point;
