-- Grain: one row: 1 minus the mean cosine of the vectors that both nights have.
SELECT 1 - avg(array_cosine_similarity(now.embedding, was.embedding)) AS drift
FROM now
JOIN was USING (id);
