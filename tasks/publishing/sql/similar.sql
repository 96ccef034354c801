-- Grain: one row: the items that are closest to `item` by the cosine of their vectors, as JSON.
WITH near AS (
    SELECT others.item_id, array_cosine_similarity(others.vector, own.vector) AS cosine
    FROM vectors AS own
    JOIN vectors AS others ON others.item_id <> own.item_id
    WHERE own.item_id = getvariable('item')
    ORDER BY cosine DESC, others.item_id
    LIMIT getvariable('k')
)
SELECT CASE WHEN count(*) > 0 THEN to_json({
    item_id: getvariable('item'),
    items: list({item_id: item_id, cosine: cosine} ORDER BY cosine DESC, item_id)
}) END AS answer
FROM near;
