-- Mean seconds of past trainings, by what they depend on most.
SELECT
    dataset,
    model,
    epochs_budget,
    avg(train_seconds) AS seconds,
    avg(train_seconds / greatest(epochs_run, 1)) AS seconds_per_epoch
FROM runs
GROUP BY ALL
ORDER BY ALL;
