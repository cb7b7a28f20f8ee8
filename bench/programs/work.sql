-- SPDX-License-Identifier: GPL-2.0-or-later
-- Work for sqlite3: a table of random rows, an index, joins, aggregates, updates.
CREATE TABLE item (id INTEGER PRIMARY KEY, key INTEGER, word TEXT, weight REAL);
WITH RECURSIVE n (i, r) AS (
    SELECT 1, 12345 UNION ALL SELECT i + 1, (r * 1103515245 + 12345) & 2147483647 FROM n WHERE i < 150000)
INSERT INTO item SELECT i, r % 5003, 'word-' || (r % 997), r / 1000.0 FROM n;
CREATE INDEX by_key ON item (key);
SELECT count(*), sum(key), round(avg(weight), 3) FROM item WHERE word LIKE '%-9%';
SELECT count(*) FROM item a JOIN item b ON a.key = b.key AND a.id < b.id WHERE a.word < 'word-2';
UPDATE item SET weight = weight + key WHERE key BETWEEN 1000 AND 2000;
SELECT word, count(*), max(weight) FROM item GROUP BY word ORDER BY 2 DESC, 1 LIMIT 10;
DELETE FROM item WHERE key % 3 = 0;
SELECT count(*), min(key), max(key) FROM item;
