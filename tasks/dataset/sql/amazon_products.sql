-- One block of Amazon metadata (`objects`: row, line), of any edition. The first part of a category
-- path is the category that was downloaded. Variable: text, JSON paths of what follows a title.
CREATE OR REPLACE TEMP TABLE block AS
WITH fields AS (
    SELECT
        row, left(line::VARCHAR, 500) AS line,
        coalesce(line ->> '$.parent_asin', line ->> '$.asin') AS item_id,
        -- Some titles of 2018 are a page's script instead, as its authors' notebook says.
        CASE WHEN line ->> '$.title' NOT LIKE '%getTime%' THEN trim(line ->> '$.title') END AS title,
        list_filter(
            list_transform(
                getvariable('text')::VARCHAR[],
                -- What 2023 calls the store of an album: `Miles Davis   Format: Audio CD`.
                lambda path: trim(regexp_replace(line ->> path, '\s*Format:.*$', ''))),
            lambda text: text != '') AS text,
        CASE
            WHEN json_type(line, '$.categories[0]') = 'ARRAY'
            THEN flatten(list_transform(
                try((line -> '$.categories')::VARCHAR[][]), lambda path: path[2:]))
            WHEN json_type(line, '$.categories') = 'ARRAY'
            THEN (try((line -> '$.categories')::VARCHAR[]))[2:]
            WHEN json_type(line, '$.category') = 'ARRAY'
            THEN (try((line -> '$.category')::VARCHAR[]))[2:]
        END AS genres
    FROM objects
)
SELECT
    row, line, item_id,
    unescaped(concat_ws(
        ' – ', nullif(title, ''), nullif(list_aggregate(text, 'string_agg', ' – '), ''))) AS title,
    NULL::VARCHAR AS year,
    unescaped(list_aggregate(
        list_filter(genres, lambda genre, place: list_position(genres, genre) = place),
        'string_agg', '|')) AS genres,
    NULL::VARCHAR AS features
FROM fields;
