-- The first fault of rankings that were made elsewhere, with the number of rows that share it.
-- `given` has a row per ranked item; train, valid, test and items are the split and the catalogue.
WITH
known AS (
    SELECT user_id, item_id, 'train' AS part FROM train
    UNION ALL
    SELECT user_id, item_id, 'valid' AS part FROM valid
),
known_to AS (  -- parts whose items are no candidates, by split
    SELECT * FROM (VALUES ('valid', 'train'), ('test', 'train'), ('test', 'valid')) AS t (split, part)
),
candidates AS (  -- how many items could be ranked for a user
    SELECT split, user_id, (SELECT count(*) FROM items) - count(*) AS n
    FROM known JOIN known_to USING (part)
    GROUP BY split, user_id
),
faults AS (
    SELECT 0 AS kind, row, fault.field AS field, fault.value AS value, fault.why AS why
    FROM given WHERE fault IS NOT NULL
    UNION ALL
    SELECT 1, row, 'split', split, 'is no part that is ranked. Write valid or test.'
    FROM given WHERE split IS NULL OR split NOT IN ('valid', 'test')
    UNION ALL
    SELECT 2, row, 'user_id', user_id,
        'is not in the data set. Write the raw ids of the data set, in which 007 is not 7.'
    FROM given
    WHERE user_id IS NULL OR user_id NOT IN (
        SELECT user_id FROM known UNION SELECT user_id FROM test
    )
    UNION ALL
    SELECT 3, row, 'item_id', item_id || ' of user ' || user_id,
        'is not in the catalogue. Write the raw ids of the data set, in which 007 is not 7.'
    FROM given WHERE item_id IS NULL OR item_id NOT IN (SELECT item_id FROM items)
    UNION ALL
    SELECT 4, row, 'score', coalesce(score::VARCHAR, 'none') || ' of user ' || user_id,
        'is no finite number. Write one for every item.'
    FROM given WHERE score IS NULL OR NOT isfinite(score)
    UNION ALL
    SELECT 5, row, 'item_id', item_id || ' of user ' || user_id,
        'is in the user''s ' || part || ' part, so no candidate on ' || split || '. Leave known items out, and rank more.'
    FROM given JOIN known USING (user_id, item_id) JOIN known_to USING (split, part)
    UNION ALL
    SELECT 6, row, 'item_id', item_id || ' of user ' || user_id,
        'stands twice in a user''s ranking of ' || split || '. Keep one.'
    FROM given
    QUALIFY row_number() OVER (PARTITION BY split, user_id, item_id ORDER BY row) > 1
    UNION ALL
    SELECT 7, min(row), 'user_id', user_id,
        'has ' || count(*) || ' items on ' || split || ', where evaluation.k needs ' || least(getvariable('k'), any_value(n)) || '. Rank more, or lower evaluation.k.'
    FROM given JOIN candidates USING (split, user_id)
    GROUP BY split, user_id HAVING count(*) < least(getvariable('k'), any_value(n))
    UNION ALL
    SELECT 8, NULL, 'user_id', user_id,
        'has ' || split || ' interactions, but no ranking. Rank for every user with training interactions.'
    FROM (
        SELECT 'test' AS split, user_id FROM test
        UNION
        SELECT 'valid', user_id FROM valid WHERE EXISTS (FROM given WHERE split = 'valid')
    ) AS held
    WHERE user_id IN (SELECT user_id FROM train)
        AND (split, user_id) NOT IN (SELECT (split, user_id) FROM given)
)
SELECT row, field, value, why, count(*) OVER (PARTITION BY kind) AS rows
FROM faults
ORDER BY kind, row, value
LIMIT 1
