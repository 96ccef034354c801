-- Grain: one row: the share of tonight's places whose item was in the same user's list before.
SELECT avg(CAST(earlier.item_id IS NOT NULL AS INTEGER)) AS share
FROM lists
LEFT JOIN earlier USING (user_id, item_id)
WHERE user_id IN (SELECT user_id FROM earlier);
