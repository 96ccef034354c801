-- Replace what is known of the new runs and of the experiment's comparison. Runs of the same
-- experiment under an earlier configuration stay as history. new_* are Arrow tables.
UPDATE runs SET is_current = false WHERE experiment IN (SELECT experiment FROM new_runs);
DELETE FROM runs WHERE run_id IN (SELECT run_id FROM new_runs);
DELETE FROM metrics WHERE run_id IN (SELECT run_id FROM new_runs);
DELETE FROM user_metrics WHERE run_id IN (SELECT run_id FROM new_runs);
DELETE FROM epochs WHERE run_id IN (SELECT run_id FROM new_runs);
DELETE FROM slices WHERE run_id IN (SELECT run_id FROM new_runs);
DELETE FROM points WHERE experiment IN (SELECT experiment FROM new_runs);
DELETE FROM contrasts WHERE experiment IN (SELECT experiment FROM new_runs);
DELETE FROM slice_contrasts WHERE experiment IN (SELECT experiment FROM new_runs);

INSERT INTO runs BY NAME SELECT * FROM new_runs;
INSERT INTO metrics BY NAME SELECT * FROM new_metrics;
INSERT INTO user_metrics BY NAME SELECT * FROM new_user_metrics;
INSERT INTO epochs BY NAME SELECT * FROM new_epochs;
INSERT INTO slices BY NAME SELECT * FROM new_slices;
INSERT INTO contrasts BY NAME SELECT * FROM new_contrasts;
INSERT INTO slice_contrasts BY NAME SELECT * FROM new_slice_contrasts;

-- The same answers come again with every evaluation of the same profiles.
INSERT INTO llm_calls BY NAME
SELECT * FROM new_llm_calls
EXCEPT
SELECT * FROM llm_calls;
