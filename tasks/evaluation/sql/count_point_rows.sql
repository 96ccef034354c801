-- How many rows the points and trials of an evaluation have.
SELECT
    (
        SELECT count(*) FROM points
        WHERE experiment = $experiment AND evaluation_id = $evaluation_id
    ) AS points,
    (
        SELECT count(*) FROM trials
        WHERE experiment = $experiment AND evaluation_id = $evaluation_id
    ) AS trials;
