-- The rows of a data set's files, in a scratch database.
-- Times without an offset are UTC, wherever this runs.
SET TimeZone = 'UTC';
SET VARIABLE control = '[\x00-\x1f\x7f]';
SET VARIABLE number = '[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?';
SET VARIABLE year_at_end = '\s*\(([0-9]{4})(?:[-–][0-9]{0,4}\s*)?\)\s*$';
CREATE TABLE interactions (
    row BIGINT, user_id VARCHAR, item_id VARCHAR, rating DOUBLE, timestamp BIGINT
);
CREATE TABLE items (
    row BIGINT, item_id VARCHAR, title VARCHAR, year INTEGER, genres VARCHAR[], features VARCHAR[]
);
CREATE TABLE quarantine (role VARCHAR, row BIGINT, line VARCHAR, reason VARCHAR);
CREATE TABLE counted (role VARCHAR, what VARCHAR, rows BIGINT);
-- What pages escape: Amazon's titles and categories have it.
CREATE MACRO unescaped(text) AS
    replace(replace(replace(replace(replace(replace(
        text, '&quot;', '"'), '&#39;', ''''), '&#34;', '"'), '&lt;', '<'), '&gt;', '>'), '&amp;', '&');
