DELETE FROM interactions
WHERE item_id IN (
    SELECT item_id FROM interactions GROUP BY item_id HAVING count(*) < getvariable('core_items')
);
