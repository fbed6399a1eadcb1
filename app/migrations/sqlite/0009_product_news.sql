-- SQLite tells nobody: what this process writes it knows itself, and what another one writes is found in the change log of products (0002), which the
-- search index reads five times a second.
SELECT 1;
