-- The split as TSV and as RecBole's atomic files; ids hold no tabs. {folder} and {name} are texts.
COPY train TO '{folder}/train.tsv' (DELIMITER '\t', HEADER, QUOTE '');
COPY valid TO '{folder}/valid.tsv' (DELIMITER '\t', HEADER, QUOTE '');
COPY test TO '{folder}/test.tsv' (DELIMITER '\t', HEADER, QUOTE '');
COPY users TO '{folder}/users.tsv' (DELIMITER '\t', HEADER, QUOTE '');
COPY (SELECT item_id FROM items) TO '{folder}/items.tsv' (DELIMITER '\t', HEADER, QUOTE '');
CREATE MACRO atomic(part) AS TABLE
SELECT
    user_id AS "user_id:token", item_id AS "item_id:token", rating AS "rating:float",
    timestamp AS "timestamp:float"
FROM query_table(part);
COPY (FROM atomic('train')) TO '{folder}/{name}.train.inter' (DELIMITER '\t', HEADER, QUOTE '');
COPY (FROM atomic('valid')) TO '{folder}/{name}.valid.inter' (DELIMITER '\t', HEADER, QUOTE '');
COPY (FROM atomic('test')) TO '{folder}/{name}.test.inter' (DELIMITER '\t', HEADER, QUOTE '');
