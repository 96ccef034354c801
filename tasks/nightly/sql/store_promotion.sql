-- One row a night: a night that is told twice, as after a crash, replaces its row.
DELETE FROM promotions
USING new_promotions
WHERE promotions.experiment = new_promotions.experiment
  AND promotions.decided_at = new_promotions.decided_at;

INSERT INTO promotions BY NAME SELECT * FROM new_promotions;
