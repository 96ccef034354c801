-- One row a night: a night that is told twice, as after a crash, replaces its row.
DELETE FROM promotions
USING new_promotion
WHERE promotions.experiment = new_promotion.experiment
  AND promotions.decided_at = new_promotion.decided_at;

INSERT INTO promotions BY NAME SELECT * FROM new_promotion;
