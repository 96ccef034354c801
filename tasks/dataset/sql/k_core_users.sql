DELETE FROM interactions
WHERE user_id IN (
    SELECT user_id FROM interactions GROUP BY user_id HAVING count(*) < getvariable('core_users')
);
