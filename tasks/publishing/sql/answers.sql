-- Grain: one user: the list as JSON, best first; the empty name stands for users not known.
SELECT
    user_id,
    to_json({
        experiment: getvariable('experiment'),
        version: getvariable('version'),
        user_id: nullif(user_id, ''),
        source: any_value(source),
        items: list(
            {rank: rank, item_id: item_id, title: title, year: year, score: score} ORDER BY rank
        )
    }) AS answer
FROM lists
JOIN items USING (item_id)
GROUP BY user_id
ORDER BY user_id;
