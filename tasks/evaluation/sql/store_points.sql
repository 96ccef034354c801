-- Replace what is known of an experiment's points and trials. new_* are Arrow tables.
DELETE FROM points WHERE experiment IN (SELECT experiment FROM new_points);
DELETE FROM trials WHERE experiment IN (SELECT experiment FROM new_points);

INSERT INTO points BY NAME SELECT * FROM new_points;
INSERT INTO trials BY NAME SELECT * FROM new_trials;
