-- One block of interactions as text (`block`), each row with the first thing that is wrong with it.
-- Variables: unit (a dataset.timestamp_unit), per_second (NULL where it is text), has_timestamp,
-- decimal (the mark in ratings), control, number.
CREATE OR REPLACE TEMP TABLE validated AS
WITH numbers AS (
    SELECT
        row, line, user_id, item_id, rating AS rating_text, timestamp AS timestamp_text,
        CASE WHEN getvariable('decimal') = '.' THEN rating
            WHEN NOT contains(rating, '.') THEN replace(rating, ',', '.') END AS decimal,
        CASE WHEN regexp_full_match(decimal, getvariable('number'))
            THEN try_cast(decimal AS DOUBLE) END AS rating,
        CASE
            WHEN getvariable('unit') = 'iso' THEN epoch(try_cast(timestamp AS TIMESTAMPTZ))
            WHEN getvariable('per_second') IS NULL
            THEN epoch(try_strptime(timestamp, getvariable('unit')))
            WHEN regexp_full_match(timestamp, getvariable('number'))
            THEN try_cast(timestamp AS DOUBLE) / getvariable('per_second')
        END AS seconds
    FROM block
)
SELECT
    row, user_id, item_id, rating,
    CASE WHEN abs(seconds) < 1e15 THEN floor(seconds)::BIGINT END AS timestamp,
    CASE
        WHEN coalesce(trim(user_id), '') = '' THEN 'user_id is empty'
        WHEN regexp_matches(user_id, getvariable('control')) THEN 'user_id holds control characters'
        WHEN strlen(user_id) > 65536 THEN 'user_id is longer than 65536 bytes'
        WHEN regexp_matches(user_id, '^\s|\s$') THEN 'user_id has white space around it'
        WHEN coalesce(trim(item_id), '') = '' THEN 'item_id is empty'
        WHEN regexp_matches(item_id, getvariable('control')) THEN 'item_id holds control characters'
        WHEN strlen(item_id) > 65536 THEN 'item_id is longer than 65536 bytes'
        WHEN regexp_matches(item_id, '^\s|\s$') THEN 'item_id has white space around it'
        WHEN regexp_full_match(rating_text, '(?i)[-+]?(nan|inf|infinity)')
            THEN 'rating is NaN or infinite'
        WHEN rating_text != '' AND rating IS NULL AND regexp_full_match(rating_text, '-?\d+[,.]\d+')
            THEN 'rating has another decimal mark'
        WHEN rating_text != '' AND rating IS NULL THEN 'rating is not a number'
        WHEN abs(rating) > 3.4028234e38 THEN 'rating is too large'
        WHEN getvariable('has_timestamp') AND coalesce(timestamp_text, '') = ''
            THEN 'timestamp is empty'
        WHEN timestamp_text IS NULL THEN NULL
        WHEN regexp_full_match(timestamp_text, '(?i)[-+]?(nan|inf|infinity)')
            THEN 'timestamp is NaN or infinite'
        WHEN seconds IS NULL AND getvariable('unit') = 'iso'
            THEN 'timestamp is no ISO date or time'
        WHEN seconds IS NULL AND getvariable('per_second') IS NULL
            THEN 'timestamp is not ' || getvariable('unit')
        WHEN seconds IS NULL THEN 'timestamp is not a number'
        WHEN seconds < 0 THEN 'timestamp is negative'
        WHEN getvariable('per_second') IS NOT NULL AND seconds >= 1e11 THEN
            CASE WHEN seconds * getvariable('per_second') >= 1e17 THEN 'timestamp: nanoseconds?'
                WHEN seconds * getvariable('per_second') >= 1e14 THEN 'timestamp: microseconds?'
                ELSE 'timestamp: milliseconds?' END
        WHEN getvariable('unit') = 'ms' AND seconds < 1e8 AND seconds > 0
            THEN 'timestamp: seconds?'
        WHEN seconds >= 4102444800 THEN 'timestamp is after the year 2099'
    END AS reason,
    CASE WHEN reason IS NOT NULL THEN
        left(coalesce(line, concat_ws(', ', user_id, item_id, rating_text, timestamp_text)), 500)
    END AS line
FROM numbers;

INSERT INTO quarantine
SELECT 'interactions', row, line, reason FROM validated WHERE reason IS NOT NULL;

INSERT INTO interactions
SELECT row, user_id, item_id, rating, timestamp FROM validated WHERE reason IS NULL;
