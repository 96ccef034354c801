-- Every item with an interaction, and unless only_touched every other item that is described.
CREATE TABLE catalogue AS
SELECT item_id, title, year, genres, features, touched.item_id IS NOT NULL AS touched,
    described.item_id IS NOT NULL AS described
FROM (SELECT DISTINCT item_id FROM interactions) AS touched
FULL JOIN items AS described USING (item_id)
WHERE touched.item_id IS NOT NULL OR NOT getvariable('only_touched');
