-- Replace what is known of an experiment's points, and of the trials that it repeats; other trials
-- stay as history. new_* are Arrow tables.
DELETE FROM points WHERE experiment IN (SELECT experiment FROM new_points);
UPDATE trials SET is_current = false WHERE experiment IN (SELECT experiment FROM new_points);
DELETE FROM trials
WHERE (experiment, point, model, arm, search, trial) IN (
    SELECT (experiment, point, model, arm, search, trial) FROM new_trials
);

INSERT INTO points BY NAME SELECT * FROM new_points;
INSERT INTO trials BY NAME SELECT * FROM new_trials;
