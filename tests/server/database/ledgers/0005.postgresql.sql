-- A ledger of schema revision 0005 in PostgreSQL, as the program of that revision wrote it.
CREATE FUNCTION refuse_change_of_events() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'events are added and never changed'; END $$;
CREATE TABLE acknowledgements (
    site character varying(100) NOT NULL,
    number integer NOT NULL,
    state character varying(20) NOT NULL,
    records bigint NOT NULL,
    entries bigint NOT NULL,
    guarantee character varying(20) NOT NULL,
    seconds double precision NOT NULL,
    reason text NOT NULL,
    record_epsilon double precision,
    record_delta double precision,
    subject_epsilon double precision,
    subject_delta double precision,
    subject_records bigint,
    acknowledged_at timestamp without time zone NOT NULL,
    receipt bytea
);
CREATE TABLE events (
    event integer NOT NULL,
    at timestamp without time zone NOT NULL,
    request integer,
    site character varying(100) NOT NULL,
    before character varying(40) NOT NULL,
    after character varying(40) NOT NULL,
    reason text NOT NULL
);
CREATE SEQUENCE events_event_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE events_event_seq OWNED BY events.event;
CREATE TABLE invitations (
    token_hash bytea NOT NULL,
    name character varying(100) NOT NULL,
    role character varying(20) NOT NULL,
    invited_at timestamp without time zone NOT NULL,
    expires_at timestamp without time zone NOT NULL,
    used_for character varying(40)
);
CREATE TABLE ledger_revision (
    version_num character varying(32) NOT NULL
);
CREATE TABLE log_heads (
    size bigint NOT NULL,
    envelope bytea NOT NULL
);
CREATE TABLE log_leaves (
    number bigint NOT NULL,
    kind character varying(10) NOT NULL,
    name character varying(300) NOT NULL,
    hash bytea NOT NULL,
    content bytea NOT NULL
);
CREATE TABLE log_nodes (
    level integer NOT NULL,
    "position" bigint NOT NULL,
    hash bytea NOT NULL
);
CREATE TABLE log_size (
    "only" integer NOT NULL,
    size bigint NOT NULL
);
CREATE TABLE members (
    serial character varying(40) NOT NULL,
    name character varying(100) NOT NULL,
    role character varying(20) NOT NULL,
    fingerprint bytea NOT NULL,
    public_key bytea NOT NULL,
    certificate bytea NOT NULL,
    enrolled_at timestamp without time zone NOT NULL,
    not_after timestamp without time zone NOT NULL,
    used_at timestamp without time zone,
    replaced_at timestamp without time zone,
    revoked_at timestamp without time zone,
    reason text DEFAULT ''::text NOT NULL
);
CREATE TABLE orders (
    site character varying(100) NOT NULL,
    number integer NOT NULL,
    request integer NOT NULL,
    state character varying(20) DEFAULT 'pending'::character varying NOT NULL,
    reason text DEFAULT ''::text NOT NULL
);
CREATE TABLE request_references (
    request integer NOT NULL,
    first integer NOT NULL,
    block bytea NOT NULL
);
CREATE TABLE requests (
    number integer NOT NULL,
    request_id character varying(200) NOT NULL,
    requester character varying(100) NOT NULL,
    target_kind character varying(10) NOT NULL,
    target_site character varying(100) NOT NULL,
    subject_reference bytea,
    reference_count integer NOT NULL,
    submitted_at timestamp without time zone NOT NULL,
    content_digest bytea,
    everyone boolean DEFAULT false NOT NULL,
    state character varying(20) DEFAULT 'received'::character varying NOT NULL,
    due_at timestamp without time zone,
    extension text DEFAULT ''::text NOT NULL,
    signature bytea
);
CREATE SEQUENCE requests_number_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE requests_number_seq OWNED BY requests.number;
CREATE TABLE rounds (
    opening integer NOT NULL,
    number bigint NOT NULL,
    opened_at timestamp without time zone NOT NULL
);
CREATE SEQUENCE rounds_opening_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE rounds_opening_seq OWNED BY rounds.opening;
CREATE TABLE sites (
    name character varying(100) NOT NULL,
    registered_at timestamp without time zone NOT NULL,
    last_number integer DEFAULT 0 NOT NULL,
    left_at timestamp without time zone,
    left_after integer,
    seen_at timestamp without time zone,
    connected_until timestamp without time zone
);
ALTER TABLE ONLY events ALTER COLUMN event SET DEFAULT nextval('events_event_seq'::regclass);
ALTER TABLE ONLY requests ALTER COLUMN number SET DEFAULT nextval('requests_number_seq'::regclass);
ALTER TABLE ONLY rounds ALTER COLUMN opening SET DEFAULT nextval('rounds_opening_seq'::regclass);
INSERT INTO acknowledgements VALUES ('hospital-1', 1, 'erased', 3, 2, 'certified', 0.25, '', 1.9, 1e-05, 'Infinity', 1e-05, 2, '2026-05-17 12:00:09', NULL);
INSERT INTO acknowledgements VALUES ('hospital-2', 1, 'refused', 0, 0, 'empirical', 0.5, 'its key is "unknown", says Zoë', NULL, NULL, NULL, NULL, NULL, '2026-05-17 12:00:10', NULL);
INSERT INTO acknowledgements VALUES ('hospital-3', 1, 'nothing-held', 0, 0, 'exact', 0.3333333333333333, '', NULL, NULL, NULL, NULL, NULL, '2026-05-17 12:00:11', NULL);
INSERT INTO acknowledgements VALUES ('hospital-1', 2, 'erased', 1099511627776, 1, 'exact', 2, '', NULL, NULL, NULL, NULL, NULL, '2026-05-17 12:00:12', '\x7b7369676e65647d');
INSERT INTO acknowledgements VALUES ('hospital-2', 2, 'erased', 1, 0, 'certified', 1e-07, '', 0.30000000000000004, 1e-05, 3, 0, 1, '2026-05-17 12:00:13', NULL);
INSERT INTO events VALUES (1, '2026-05-17 12:00:01', NULL, 'hospital-1', '', 'registered', '');
INSERT INTO events VALUES (2, '2026-05-17 12:00:02', NULL, 'hospital-2', '', 'registered', '');
INSERT INTO events VALUES (3, '2026-05-17 12:00:03', NULL, 'hospital-3', '', 'registered', '');
INSERT INTO events VALUES (4, '2026-05-17 12:00:04', 1, '', '', 'received', '');
INSERT INTO events VALUES (5, '2026-05-17 12:00:04', 1, '', 'received', 'verified', '');
INSERT INTO events VALUES (6, '2026-05-17 12:00:04', 1, '', 'verified', 'dispatched', '');
INSERT INTO events VALUES (7, '2026-05-17 12:00:05', 2, '', '', 'received', '');
INSERT INTO events VALUES (8, '2026-05-17 12:00:05', 2, '', 'received', 'verified', '');
INSERT INTO events VALUES (9, '2026-05-17 12:00:05', 2, '', 'verified', 'dispatched', '');
INSERT INTO events VALUES (10, '2026-05-17 12:00:06', 3, '', '', 'received', '');
INSERT INTO events VALUES (11, '2026-05-17 12:00:06', 3, '', 'received', 'verified', '');
INSERT INTO events VALUES (12, '2026-05-17 12:00:06', 3, '', 'verified', 'dispatched', '');
INSERT INTO events VALUES (13, '2026-05-17 12:00:07', 4, '', '', 'received', '');
INSERT INTO events VALUES (14, '2026-05-17 12:00:07', 4, '', 'received', 'verified', '');
INSERT INTO events VALUES (15, '2026-05-17 12:00:07', 4, '', 'verified', 'dispatched', '');
INSERT INTO events VALUES (16, '2026-05-17 12:00:08', 1, 'hospital-1', 'pending', 'delivered', '');
INSERT INTO events VALUES (17, '2026-05-17 12:00:08', 2, 'hospital-1', 'pending', 'delivered', '');
INSERT INTO events VALUES (18, '2026-05-17 12:00:09', 1, 'hospital-1', 'delivered', 'erased', '');
INSERT INTO events VALUES (19, '2026-05-17 12:00:10', 1, 'hospital-2', 'pending', 'refused', '');
INSERT INTO events VALUES (20, '2026-05-17 12:00:11', 1, 'hospital-3', 'pending', 'nothing-held', '');
INSERT INTO events VALUES (21, '2026-05-17 12:00:11', 1, '', 'dispatched', 'partial', '');
INSERT INTO events VALUES (22, '2026-05-17 12:00:12', 2, 'hospital-1', 'delivered', 'erased', '');
INSERT INTO events VALUES (23, '2026-05-17 12:00:12', 2, '', 'dispatched', 'completed', '');
INSERT INTO events VALUES (24, '2026-05-17 12:00:13', 3, 'hospital-2', 'pending', 'erased', '');
INSERT INTO events VALUES (25, '2026-05-17 12:00:13', 3, '', 'dispatched', 'completed', '');
INSERT INTO events VALUES (26, '2026-05-17 12:00:14', 4, 'hospital-3', 'pending', 'left', 'hospital-3 left the federation: merged');
INSERT INTO events VALUES (27, '2026-05-17 12:00:14', NULL, 'hospital-3', 'registered', 'left', 'merged');
INSERT INTO events VALUES (28, '2026-05-17 12:00:16', 4, '', 'due 2026-06-16', 'due 2026-06-26', 'holidays');
INSERT INTO ledger_revision VALUES ('0005');
INSERT INTO log_leaves VALUES (0, 'receipt', 'hospital-1/2', '\x0d27e27f7827ccd745199e8eb3a6af368e1064af42ae9f83740e98121e2bc025', '\x6c656166');
INSERT INTO log_nodes VALUES (0, 0, '\x0d27e27f7827ccd745199e8eb3a6af368e1064af42ae9f83740e98121e2bc025');
INSERT INTO log_size VALUES (1, 1);
INSERT INTO orders VALUES ('hospital-1', 3, 4, 'pending', '');
INSERT INTO orders VALUES ('hospital-2', 3, 4, 'pending', '');
INSERT INTO orders VALUES ('hospital-1', 1, 1, 'erased', '');
INSERT INTO orders VALUES ('hospital-2', 1, 1, 'refused', '');
INSERT INTO orders VALUES ('hospital-3', 1, 1, 'nothing-held', '');
INSERT INTO orders VALUES ('hospital-1', 2, 2, 'erased', '');
INSERT INTO orders VALUES ('hospital-2', 2, 3, 'erased', '');
INSERT INTO orders VALUES ('hospital-3', 2, 4, 'left', 'hospital-3 left the federation: merged');
INSERT INTO request_references VALUES (2, 0, '\x000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000000000002');
INSERT INTO request_references VALUES (4, 0, '\x0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000000000000000000000000000000000000000000000000000020000000000000000000000000000000000000000000000000000000000000003');
INSERT INTO requests VALUES (1, 'subject', 'data-protection-officer', 'subject', '', '\x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f', 0, '2026-05-17 12:00:04', '\x617e787d5341943490eb3ea5c20b5ba1d8153f223dacf404054c72fbca39af4a', true, 'partial', '2026-06-16 12:00:04', '', NULL);
INSERT INTO requests VALUES (2, 'records', 'hospital-1', 'records', 'hospital-1', NULL, 3, '2026-05-17 12:00:05', '\x7167acef142b2407c792f172e88e953adedc58a9a9764e2934fdc92e1e245422', false, 'completed', '2026-06-16 12:00:05', '', NULL);
INSERT INTO requests VALUES (3, 'site', 'hospital-2', 'site', 'hospital-2', NULL, 0, '2026-05-17 12:00:06', '\xa26d3b6cd303b0dfe66315daaa1867ba49ac97bdbd5801444c3c553617c98550', false, 'completed', '2026-06-16 12:00:06', '', NULL);
INSERT INTO requests VALUES (4, 'waits', 'data-protection-officer', 'records', '', NULL, 4, '2026-05-17 12:00:07', '\x79a40e72b0ec2c39ee3de27c3a1add3979d76c3a273d817a335b67e56781d9f9', true, 'dispatched', '2026-06-26 12:00:07', 'holidays', NULL);
INSERT INTO rounds VALUES (1, 1, '2026-05-17 12:00:15');
INSERT INTO sites VALUES ('hospital-1', '2026-05-17 12:00:01', 3, NULL, NULL, NULL, NULL);
INSERT INTO sites VALUES ('hospital-2', '2026-05-17 12:00:02', 3, NULL, NULL, NULL, NULL);
INSERT INTO sites VALUES ('hospital-3', '2026-05-17 12:00:03', 2, '2026-05-17 12:00:14', 4, NULL, NULL);
SELECT pg_catalog.setval('events_event_seq', 28, true);
SELECT pg_catalog.setval('requests_number_seq', 4, true);
SELECT pg_catalog.setval('rounds_opening_seq', 1, true);
ALTER TABLE ONLY acknowledgements
    ADD CONSTRAINT acknowledgements_pkey PRIMARY KEY (site, number);
ALTER TABLE ONLY events
    ADD CONSTRAINT events_pkey PRIMARY KEY (event);
ALTER TABLE ONLY invitations
    ADD CONSTRAINT invitations_pkey PRIMARY KEY (token_hash);
ALTER TABLE ONLY ledger_revision
    ADD CONSTRAINT ledger_revision_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY log_heads
    ADD CONSTRAINT log_heads_pkey PRIMARY KEY (size);
ALTER TABLE ONLY log_leaves
    ADD CONSTRAINT log_leaves_kind_name_key UNIQUE (kind, name);
ALTER TABLE ONLY log_leaves
    ADD CONSTRAINT log_leaves_pkey PRIMARY KEY (number);
ALTER TABLE ONLY log_nodes
    ADD CONSTRAINT log_nodes_pkey PRIMARY KEY (level, "position");
ALTER TABLE ONLY log_size
    ADD CONSTRAINT log_size_pkey PRIMARY KEY ("only");
ALTER TABLE ONLY members
    ADD CONSTRAINT members_pkey PRIMARY KEY (serial);
ALTER TABLE ONLY orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (site, number);
ALTER TABLE ONLY orders
    ADD CONSTRAINT orders_request_site_key UNIQUE (request, site);
ALTER TABLE ONLY request_references
    ADD CONSTRAINT request_references_pkey PRIMARY KEY (request, first);
ALTER TABLE ONLY requests
    ADD CONSTRAINT requests_pkey PRIMARY KEY (number);
ALTER TABLE ONLY requests
    ADD CONSTRAINT requests_request_id_key UNIQUE (request_id);
ALTER TABLE ONLY rounds
    ADD CONSTRAINT rounds_pkey PRIMARY KEY (opening);
ALTER TABLE ONLY sites
    ADD CONSTRAINT sites_pkey PRIMARY KEY (name);
CREATE INDEX ix_events_request ON events USING btree (request);
CREATE INDEX ix_invitations_name ON invitations USING btree (name);
CREATE INDEX ix_log_leaves_hash ON log_leaves USING btree (hash);
CREATE INDEX ix_members_name ON members USING btree (name);
CREATE INDEX orders_open ON orders USING btree (request, site) WHERE ((state)::text = ANY ((ARRAY['pending'::character varying, 'delivered'::character varying])::text[]));
CREATE INDEX requests_by_state ON requests USING btree (state, due_at);
CREATE TRIGGER events_no_change BEFORE DELETE OR UPDATE OR TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();
ALTER TABLE ONLY acknowledgements
    ADD CONSTRAINT acknowledgements_site_number_fkey FOREIGN KEY (site, number) REFERENCES orders(site, number);
ALTER TABLE ONLY events
    ADD CONSTRAINT events_request_fkey FOREIGN KEY (request) REFERENCES requests(number);
ALTER TABLE ONLY orders
    ADD CONSTRAINT orders_request_fkey FOREIGN KEY (request) REFERENCES requests(number);
ALTER TABLE ONLY orders
    ADD CONSTRAINT orders_site_fkey FOREIGN KEY (site) REFERENCES sites(name);
ALTER TABLE ONLY request_references
    ADD CONSTRAINT request_references_request_fkey FOREIGN KEY (request) REFERENCES requests(number);
