-- How many rows an evaluation has in the database, and how many have replaced its comparison.
SELECT
    (
        SELECT count(*) FROM runs
        WHERE list_contains($run_ids, run_id) AND config_hash = $config_hash
    ) AS runs,
    (
        SELECT count(*) FROM contrasts
        WHERE experiment = $experiment AND evaluation_id = $evaluation_id
    ) AS contrasts,
    (SELECT count(*) FROM slices WHERE list_contains($run_ids, run_id)) AS slices,
    (
        SELECT count(*) FROM points
        WHERE experiment = $experiment AND evaluation_id = $evaluation_id
    ) AS points,
    (
        SELECT count(*) FROM trials
        WHERE experiment = $experiment AND evaluation_id = $evaluation_id
    ) AS trials,
    (
        SELECT count(*) FROM contrasts
        WHERE experiment = $experiment AND evaluation_id <> $evaluation_id
    ) AS contrasts_of_others;
