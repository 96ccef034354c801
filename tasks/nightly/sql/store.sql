-- A night's rows in {table}: a night that is told twice, as after a crash, replaces its rows.
DELETE FROM {table}
USING new_{table}
WHERE {table}.experiment = new_{table}.experiment
  AND {table}.decided_at = new_{table}.decided_at;

INSERT INTO {table} BY NAME SELECT * FROM new_{table};
