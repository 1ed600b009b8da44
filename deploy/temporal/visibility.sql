-- Temporal keeps an index for every attribute that a workflow can be searched by, also for the forty-odd that it holds
-- ready, most of them without a name: 27 kB of log for every start and every end of a workflow, more than all else that a
-- redemption writes. Each of them becomes an index of the same name on the rows that have the attribute. A search for
-- a value finds its rows by it as before. Run once, after the schema tool and before there are many rows: it locks the
-- table. What is done already is left as it is.
DO $$
DECLARE
    whole record;
BEGIN
    FOR whole IN
        SELECT i.indexrelid::regclass AS name, pg_get_indexdef(i.indexrelid) AS definition, a.attname AS attribute
        FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[1]
        WHERE i.indrelid = 'executions_visibility'::regclass AND i.indpred IS NULL AND NOT i.indisunique
          AND NOT a.attnotnull
    LOOP
        EXECUTE format('DROP INDEX %s', whole.name);
        EXECUTE format('%s WHERE %I IS NOT NULL', whole.definition, whole.attribute);
    END LOOP;
END $$;
