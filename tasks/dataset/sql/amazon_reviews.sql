-- One block of Amazon reviews (`objects`: row, line), of any edition: 2014 and 2018 have seconds,
-- 2023 has milliseconds.
CREATE OR REPLACE TEMP TABLE block AS
SELECT
    row, left(line::VARCHAR, 500) AS line,
    coalesce(line ->> '$.user_id', line ->> '$.reviewerID') AS user_id,
    coalesce(line ->> '$.parent_asin', line ->> '$.asin') AS item_id,
    coalesce(line ->> '$.overall', line ->> '$.rating') AS rating,
    coalesce(
        line ->> '$.unixReviewTime',
        (try_cast(line ->> '$.timestamp' AS BIGINT) // 1000)::VARCHAR,
        line ->> '$.timestamp',
        '') AS timestamp
FROM objects;
