-- One block of lines of JSON (`lines`: row, line): objects, and refused lines.
CREATE OR REPLACE TEMP TABLE refused AS
SELECT row, left(line, 500) AS line, 'it is not a JSON object' AS reason
FROM lines WHERE NOT coalesce(try(json_type(line)) = 'OBJECT', FALSE);

CREATE OR REPLACE TEMP TABLE objects AS
SELECT row, try(line::JSON) AS line FROM lines WHERE row NOT IN (SELECT row FROM refused);
