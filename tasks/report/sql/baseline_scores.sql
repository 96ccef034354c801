-- The validation score of every run's kept epoch; none where rankings were made elsewhere.
SELECT run_id, valid_score FROM runs JOIN epochs USING (run_id) WHERE epoch = best_epoch
