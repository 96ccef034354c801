-- Leaves one interaction per pair. Variable: duplicates (newest, oldest, max-rating).
CREATE TEMP TABLE repeated AS
SELECT user_id, item_id FROM interactions GROUP BY ALL HAVING count(*) > 1;

CREATE TEMP TABLE surplus AS
SELECT row FROM (
    SELECT
        row,
        row_number() OVER (
            PARTITION BY user_id, item_id
            ORDER BY
                CASE WHEN getvariable('duplicates') = 'max-rating' THEN rating END DESC NULLS LAST,
                CASE WHEN getvariable('duplicates') = 'oldest' THEN timestamp END ASC NULLS LAST,
                CASE WHEN getvariable('duplicates') = 'oldest' THEN row END ASC NULLS LAST,
                timestamp DESC NULLS LAST,
                row DESC
        ) AS place
    FROM interactions SEMI JOIN repeated USING (user_id, item_id)
)
WHERE place > 1;

DELETE FROM interactions WHERE row IN (SELECT row FROM surplus);
