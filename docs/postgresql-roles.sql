-- Two roles for the portal's database: the owner makes and changes tables (migrate, archive_audit); the application works
-- with them. The application can add entries to the audit trail and read them. It can neither change nor remove them, nor
-- touch the triggers that guard them, nor make a table that stands before the trail.
--
-- Run it as an administrator of the server, in the portal's database, before the first migrate and after each later one:
--
--     psql --no-psqlrc --set ON_ERROR_STOP=1 --single-transaction --dbname portal --file docs/postgresql-roles.sql
--
-- It may be run again at any time. Give both roles their way to sign in yourself, for example:
--
--     ALTER ROLE portal_owner PASSWORD '…';  ALTER ROLE portal_app PASSWORD '…';
--
-- DATABASE_URL of web processes and workers names portal_app. Only `migrate` and `archive_audit` run with portal_owner.

DO $$
DECLARE
    thing record;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'portal_owner') THEN
        CREATE ROLE portal_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'portal_app') THEN
        CREATE ROLE portal_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
    END IF;
    IF pg_has_role('portal_app', 'portal_owner', 'MEMBER') THEN
        RAISE EXCEPTION 'portal_app is a member of portal_owner, and could become it. Revoke that first.';
    END IF;

    -- Nobody but the owner makes anything in the schema, or a schema beside it.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO portal_app', current_database());
    EXECUTE format('GRANT ALL ON DATABASE %I TO portal_owner', current_database());
    REVOKE ALL ON SCHEMA public FROM PUBLIC, portal_app;
    GRANT USAGE ON SCHEMA public TO portal_app;
    GRANT ALL ON SCHEMA public TO portal_owner;

    -- What is there belongs to the owner: tables, sequences of their own, the function of the triggers.
    FOR thing IN
        SELECT c.relname, c.relkind FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
            AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i', 'e'))
    LOOP
        EXECUTE format(
            'ALTER %s public.%I OWNER TO portal_owner',
            CASE thing.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
            thing.relname
        );
    END LOOP;
    FOR thing IN
        SELECT p.oid::regprocedure AS signature FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
            AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO portal_owner', thing.signature);
    END LOOP;

    -- The application reads and writes rows, also of tables that later migrations make.
    REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, portal_app;
    REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, portal_app;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO portal_app;
    GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO portal_app;
    ALTER DEFAULT PRIVILEGES FOR ROLE portal_owner IN SCHEMA public
        GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO portal_app;
    ALTER DEFAULT PRIVILEGES FOR ROLE portal_owner IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO portal_app;

    -- Of the trail it only reads entries and adds some; what was migrated it only reads.
    IF to_regclass('public.audit_auditevent') IS NOT NULL THEN
        REVOKE ALL ON public.audit_auditevent FROM PUBLIC, portal_app;
        GRANT SELECT, INSERT ON public.audit_auditevent TO portal_app;
    END IF;
    IF to_regclass('public.django_migrations') IS NOT NULL THEN
        REVOKE INSERT, DELETE ON public.django_migrations FROM portal_app;
    END IF;
END $$;
