-- What PostgreSQL spells in its own way.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'events are added and never changed'; END $$;
CREATE TRIGGER events_no_change BEFORE DELETE OR UPDATE OR TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();
SELECT pg_catalog.setval('events_event_seq', 28, true);
SELECT pg_catalog.setval('requests_number_seq', 4, true);
SELECT pg_catalog.setval('rounds_opening_seq', 1, true);
