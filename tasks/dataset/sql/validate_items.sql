-- One block of items as text (`block`): a row of an item that an earlier row describes is refused.
-- Genres that were a list begin with chr(31), which separates them, too.
-- Variables: genre_separator (empty: white space), year_from_title, control.
CREATE OR REPLACE TEMP TABLE validated AS
SELECT
    row, line, item_id, title, year, genres, features,
    CASE
        WHEN coalesce(trim(item_id), '') = '' THEN 'item_id is empty'
        WHEN regexp_matches(item_id, getvariable('control')) THEN 'item_id holds control characters'
        WHEN strlen(item_id) > 65536 THEN 'item_id is longer than 65536 bytes'
        WHEN regexp_matches(item_id, '^\s|\s$') THEN 'item_id has white space around it'
        WHEN row_number() OVER (PARTITION BY item_id ORDER BY row) > 1
            OR item_id IN (SELECT item_id FROM items) THEN 'an earlier row has the same item_id'
    END AS reason
FROM block;

INSERT INTO quarantine
SELECT
    'items', row, left(coalesce(line, concat_ws(', ', item_id, title, year, genres)), 500), reason
FROM validated WHERE reason IS NOT NULL;

INSERT INTO counted
SELECT 'items', 'items with an unreadable year', count(*)
FROM validated
WHERE reason IS NULL AND year != '' AND NOT regexp_matches(year, '^\d{4}(\D|$)');

INSERT INTO items
SELECT
    row, item_id,
    nullif(trim(CASE WHEN getvariable('year_from_title')
        THEN regexp_replace(title, getvariable('year_at_end'), '') ELSE title END), ''),
    coalesce(
        try_cast(nullif(regexp_extract(year, '^(\d{4})(\D|$)', 1), '') AS INTEGER),
        CASE WHEN getvariable('year_from_title') THEN
            try_cast(nullif(regexp_extract(title, getvariable('year_at_end'), 1), '') AS INTEGER)
        END),
    CASE WHEN genres IS NOT NULL AND genres != '' THEN
        list_filter(
            list_transform(
                CASE WHEN genres[1] = chr(31) THEN string_split(genres[2:], chr(31))
                    WHEN getvariable('genre_separator') = ''
                    THEN regexp_split_to_array(genres, '\s+')
                    ELSE string_split(genres, getvariable('genre_separator')) END,
                lambda genre: trim(genre)),
            lambda genre: genre NOT IN ('', '(no genres listed)'))
    END,
    string_split(nullif(features, ''), chr(31))
FROM validated WHERE reason IS NULL;
