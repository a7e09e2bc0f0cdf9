-- A ledger of schema revision 0005, as the program of that revision wrote it.
CREATE TABLE requests (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    request_id VARCHAR(200) NOT NULL,
    requester VARCHAR(100) NOT NULL,
    target_kind VARCHAR(10) NOT NULL,
    target_site VARCHAR(100) NOT NULL,
    subject_reference BLOB,
    reference_count INTEGER NOT NULL,
    submitted_at DATETIME NOT NULL, content_digest BLOB, everyone BOOLEAN DEFAULT 0 NOT NULL, state VARCHAR(20) DEFAULT 'received' NOT NULL, due_at DATETIME, extension TEXT DEFAULT '' NOT NULL, signature BLOB,
    UNIQUE (request_id)
);
INSERT INTO "requests" VALUES(1,'subject','data-protection-officer','subject','',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F',0,'2026-05-17 12:00:04.000000',X'617E787D5341943490EB3EA5C20B5BA1D8153F223DACF404054C72FBCA39AF4A',TRUE,'partial','2026-06-16 12:00:04.000000','',NULL);
INSERT INTO "requests" VALUES(2,'records','hospital-1','records','hospital-1',NULL,3,'2026-05-17 12:00:05.000000',X'7167ACEF142B2407C792F172E88E953ADEDC58A9A9764E2934FDC92E1E245422',FALSE,'completed','2026-06-16 12:00:05.000000','',NULL);
INSERT INTO "requests" VALUES(3,'site','hospital-2','site','hospital-2',NULL,0,'2026-05-17 12:00:06.000000',X'A26D3B6CD303B0DFE66315DAAA1867BA49AC97BDBD5801444C3C553617C98550',FALSE,'completed','2026-06-16 12:00:06.000000','',NULL);
INSERT INTO "requests" VALUES(4,'waits','data-protection-officer','records','',NULL,4,'2026-05-17 12:00:07.000000',X'79A40E72B0EC2C39EE3DE27C3A1ADD3979D76C3A273D817A335B67E56781D9F9',TRUE,'dispatched','2026-06-26 12:00:07.000000','holidays',NULL);
CREATE TABLE sites (
    name VARCHAR(100) NOT NULL,
    registered_at DATETIME NOT NULL, last_number INTEGER DEFAULT '0' NOT NULL, left_at DATETIME, left_after INTEGER, seen_at DATETIME, connected_until DATETIME,
    PRIMARY KEY (name)
);
INSERT INTO "sites" VALUES('hospital-1','2026-05-17 12:00:01.000000',3,NULL,NULL,NULL,NULL);
INSERT INTO "sites" VALUES('hospital-2','2026-05-17 12:00:02.000000',3,NULL,NULL,NULL,NULL);
INSERT INTO "sites" VALUES('hospital-3','2026-05-17 12:00:03.000000',2,'2026-05-17 12:00:14.000000',4,NULL,NULL);
CREATE TABLE orders (
    site VARCHAR(100) NOT NULL,
    number INTEGER NOT NULL,
    request INTEGER NOT NULL, state VARCHAR(20) DEFAULT 'pending' NOT NULL, reason TEXT DEFAULT '' NOT NULL,
    PRIMARY KEY (site, number),
    UNIQUE (request, site),
    FOREIGN KEY(site) REFERENCES sites (name),
    FOREIGN KEY(request) REFERENCES requests (number)
);
INSERT INTO "orders" VALUES('hospital-1',1,1,'erased','');
INSERT INTO "orders" VALUES('hospital-2',1,1,'refused','');
INSERT INTO "orders" VALUES('hospital-3',1,1,'nothing-held','');
INSERT INTO "orders" VALUES('hospital-1',2,2,'erased','');
INSERT INTO "orders" VALUES('hospital-2',2,3,'erased','');
INSERT INTO "orders" VALUES('hospital-1',3,4,'pending','');
INSERT INTO "orders" VALUES('hospital-2',3,4,'pending','');
INSERT INTO "orders" VALUES('hospital-3',2,4,'left','hospital-3 left the federation: merged');
CREATE TABLE acknowledgements (
    site VARCHAR(100) NOT NULL,
    number INTEGER NOT NULL,
    state VARCHAR(20) NOT NULL,
    records BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    guarantee VARCHAR(20) NOT NULL,
    seconds DOUBLE NOT NULL,
    reason TEXT NOT NULL,
    record_epsilon DOUBLE,
    record_delta DOUBLE,
    subject_epsilon DOUBLE,
    subject_delta DOUBLE,
    subject_records BIGINT,
    acknowledged_at DATETIME NOT NULL, receipt BLOB,
    PRIMARY KEY (site, number),
    FOREIGN KEY(site, number) REFERENCES orders (site, number)
);
INSERT INTO "acknowledgements" VALUES('hospital-1',1,'erased',3,2,'certified',0.25,'',1.9,1.0e-05,9e999,1.0e-05,2,'2026-05-17 12:00:09.000000',NULL);
INSERT INTO "acknowledgements" VALUES('hospital-2',1,'refused',0,0,'empirical',0.5,'its key is "unknown", says Zoë',NULL,NULL,NULL,NULL,NULL,'2026-05-17 12:00:10.000000',NULL);
INSERT INTO "acknowledgements" VALUES('hospital-3',1,'nothing-held',0,0,'exact',3.33333333333333314829e-01,'',NULL,NULL,NULL,NULL,NULL,'2026-05-17 12:00:11.000000',NULL);
INSERT INTO "acknowledgements" VALUES('hospital-1',2,'erased',1099511627776,1,'exact',2.0,'',NULL,NULL,NULL,NULL,NULL,'2026-05-17 12:00:12.000000',X'7B7369676E65647D');
INSERT INTO "acknowledgements" VALUES('hospital-2',2,'erased',1,0,'certified',1.0e-07,'',3.00000000000000044408e-01,1.0e-05,3.0,0.0,1,'2026-05-17 12:00:13.000000',NULL);
CREATE TABLE events (
    event INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at DATETIME NOT NULL,
    request INTEGER,
    site VARCHAR(100) NOT NULL,
    "before" VARCHAR(40) NOT NULL,
    "after" VARCHAR(40) NOT NULL,
    reason TEXT NOT NULL,
    FOREIGN KEY(request) REFERENCES requests (number)
);
INSERT INTO "events" VALUES(1,'2026-05-17 12:00:01.000000',NULL,'hospital-1','','registered','');
INSERT INTO "events" VALUES(2,'2026-05-17 12:00:02.000000',NULL,'hospital-2','','registered','');
INSERT INTO "events" VALUES(3,'2026-05-17 12:00:03.000000',NULL,'hospital-3','','registered','');
INSERT INTO "events" VALUES(4,'2026-05-17 12:00:04.000000',1,'','','received','');
INSERT INTO "events" VALUES(5,'2026-05-17 12:00:04.000000',1,'','received','verified','');
INSERT INTO "events" VALUES(6,'2026-05-17 12:00:04.000000',1,'','verified','dispatched','');
INSERT INTO "events" VALUES(7,'2026-05-17 12:00:05.000000',2,'','','received','');
INSERT INTO "events" VALUES(8,'2026-05-17 12:00:05.000000',2,'','received','verified','');
INSERT INTO "events" VALUES(9,'2026-05-17 12:00:05.000000',2,'','verified','dispatched','');
INSERT INTO "events" VALUES(10,'2026-05-17 12:00:06.000000',3,'','','received','');
INSERT INTO "events" VALUES(11,'2026-05-17 12:00:06.000000',3,'','received','verified','');
INSERT INTO "events" VALUES(12,'2026-05-17 12:00:06.000000',3,'','verified','dispatched','');
INSERT INTO "events" VALUES(13,'2026-05-17 12:00:07.000000',4,'','','received','');
INSERT INTO "events" VALUES(14,'2026-05-17 12:00:07.000000',4,'','received','verified','');
INSERT INTO "events" VALUES(15,'2026-05-17 12:00:07.000000',4,'','verified','dispatched','');
INSERT INTO "events" VALUES(16,'2026-05-17 12:00:08.000000',1,'hospital-1','pending','delivered','');
INSERT INTO "events" VALUES(17,'2026-05-17 12:00:08.000000',2,'hospital-1','pending','delivered','');
INSERT INTO "events" VALUES(18,'2026-05-17 12:00:09.000000',1,'hospital-1','delivered','erased','');
INSERT INTO "events" VALUES(19,'2026-05-17 12:00:10.000000',1,'hospital-2','pending','refused','');
INSERT INTO "events" VALUES(20,'2026-05-17 12:00:11.000000',1,'hospital-3','pending','nothing-held','');
INSERT INTO "events" VALUES(21,'2026-05-17 12:00:11.000000',1,'','dispatched','partial','');
INSERT INTO "events" VALUES(22,'2026-05-17 12:00:12.000000',2,'hospital-1','delivered','erased','');
INSERT INTO "events" VALUES(23,'2026-05-17 12:00:12.000000',2,'','dispatched','completed','');
INSERT INTO "events" VALUES(24,'2026-05-17 12:00:13.000000',3,'hospital-2','pending','erased','');
INSERT INTO "events" VALUES(25,'2026-05-17 12:00:13.000000',3,'','dispatched','completed','');
INSERT INTO "events" VALUES(26,'2026-05-17 12:00:14.000000',4,'hospital-3','pending','left','hospital-3 left the federation: merged');
INSERT INTO "events" VALUES(27,'2026-05-17 12:00:14.000000',NULL,'hospital-3','registered','left','merged');
INSERT INTO "events" VALUES(28,'2026-05-17 12:00:16.000000',4,'','due 2026-06-16','due 2026-06-26','holidays');
CREATE TABLE request_references (
    request INTEGER NOT NULL,
    first INTEGER NOT NULL,
    block BLOB NOT NULL,
    PRIMARY KEY (request, first),
    FOREIGN KEY(request) REFERENCES requests (number)
);
INSERT INTO "request_references" VALUES(2,0,X'000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000000000002');
INSERT INTO "request_references" VALUES(4,0,X'0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000000000000000000000000000000000000000000000000000020000000000000000000000000000000000000000000000000000000000000003');
CREATE TABLE rounds (
    opening INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    number BIGINT NOT NULL,
    opened_at DATETIME NOT NULL
);
INSERT INTO "rounds" VALUES(1,1,'2026-05-17 12:00:15.000000');
CREATE TABLE invitations (
    token_hash BLOB NOT NULL,
    name VARCHAR(100) NOT NULL,
    role VARCHAR(20) NOT NULL,
    invited_at DATETIME NOT NULL,
    expires_at DATETIME NOT NULL,
    used_for VARCHAR(40),
    PRIMARY KEY (token_hash)
);
CREATE TABLE ledger_revision (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT ledger_revision_pkc PRIMARY KEY (version_num)
);
INSERT INTO "ledger_revision" VALUES('0005');
CREATE TABLE log_heads (
    size BIGINT NOT NULL,
    envelope BLOB NOT NULL,
    PRIMARY KEY (size)
);
CREATE TABLE log_leaves (
    number BIGINT NOT NULL,
    kind VARCHAR(10) NOT NULL,
    name VARCHAR(300) NOT NULL,
    hash BLOB NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (number),
    UNIQUE (kind, name)
);
INSERT INTO "log_leaves" VALUES(0,'receipt','hospital-1/2',X'0D27E27F7827CCD745199E8EB3A6AF368E1064AF42AE9F83740E98121E2BC025',X'6C656166');
CREATE TABLE log_nodes (
    level INTEGER NOT NULL,
    position BIGINT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (level, position)
);
INSERT INTO "log_nodes" VALUES(0,0,X'0D27E27F7827CCD745199E8EB3A6AF368E1064AF42AE9F83740E98121E2BC025');
CREATE TABLE log_size (
    "only" INTEGER NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY ("only")
);
INSERT INTO "log_size" VALUES(1,1);
CREATE TABLE members (
    serial VARCHAR(40) NOT NULL,
    name VARCHAR(100) NOT NULL,
    role VARCHAR(20) NOT NULL,
    fingerprint BLOB NOT NULL,
    public_key BLOB NOT NULL,
    certificate BLOB NOT NULL,
    enrolled_at DATETIME NOT NULL,
    not_after DATETIME NOT NULL,
    used_at DATETIME,
    replaced_at DATETIME,
    revoked_at DATETIME,
    reason TEXT DEFAULT '' NOT NULL,
    PRIMARY KEY (serial)
);
CREATE INDEX ix_events_request ON events (request);
CREATE INDEX requests_by_state ON requests (state, due_at);
CREATE INDEX orders_open ON orders (request, site) WHERE state IN ('pending', 'delivered');
CREATE INDEX ix_log_leaves_hash ON log_leaves (hash);
CREATE INDEX ix_members_name ON members (name);
CREATE INDEX ix_invitations_name ON invitations (name);
