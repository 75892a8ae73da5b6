-- The table that CLICKHOUSE writes, for ClickHouse 18.16 (Debian 12) and later:
--   clickhouse-client --multiquery < clickhouse.sql
-- For releases of today clickhouse-today.sql makes it smaller, faster to ask, and has
-- old rows removed.
--
-- A row is a record of flowlog: what it says is in docs/fleet.md.

CREATE DATABASE IF NOT EXISTS flowlog;

CREATE TABLE IF NOT EXISTS flowlog.flow (
    -- The record id: nanoseconds since the epoch, and what tells records of one
    -- nanosecond apart, also those of two hosts.
    time UInt64,
    hash UInt64,
    host String,
    type Enum8('flow' = 1, 'expectation' = 2, 'lost' = 3),
    -- The bits of event_mask.
    kinds UInt8,
    -- Of an expectation: new, update, destroy.
    action String,
    protocol UInt8,
    -- Addresses as IPv6, those of IPv4 as ::ffff:a.b.c.d.
    orig_src FixedString(16),
    orig_sport UInt16,
    orig_dst FixedString(16),
    orig_dport UInt16,
    reply_src FixedString(16),
    reply_sport UInt16,
    reply_dst FixedString(16),
    reply_dport UInt16,
    -- 1: the source was translated, 2: the destination, 3: both.
    nat UInt8,
    icmp_type UInt8,
    icmp_code UInt8,
    -- 1: the four counters are known.
    counted UInt8,
    orig_packets UInt64,
    orig_bytes UInt64,
    reply_packets UInt64,
    reply_bytes UInt64,
    -- Nanoseconds since the epoch; 0: not known.
    start UInt64,
    stop UInt64,
    -- Seconds until it would expire.
    timeout UInt32,
    zone UInt16,
    mark UInt32,
    ct_id UInt32,
    netns_cookie UInt64,
    netns_inode UInt32,
    status UInt32,
    state String,
    helper String,
    labels FixedString(16),
    -- The connection that expected this one.
    master_protocol UInt8,
    master_src FixedString(16),
    master_sport UInt16,
    master_dst FixedString(16),
    master_dport UInt16,
    cause String,
    portid UInt32,
    pid UInt32,
    comm String,
    witness String,
    -- Of a loss: who lost how many events.
    source String,
    events UInt64,

    -- Made of the others. UTC, so that a row is always of the same day.
    second DateTime('UTC') MATERIALIZED toDateTime(intDiv(time, 1000000000), 'UTC'),
    -- Made when they are asked for.
    kind String ALIAS arrayStringConcat(arrayFilter(name -> name != '', [
        if(bitAnd(kinds, 1) != 0, 'new', ''),
        if(bitAnd(kinds, 2) != 0, 'update', ''),
        if(bitAnd(kinds, 4) != 0, 'destroy', ''),
        if(bitAnd(kinds, 16) != 0, 'confirmed', ''),
        if(bitAnd(kinds, 8) != 0, 'assured', ''),
        if(bitAnd(kinds, 32) != 0, 'expect', ''),
        if(bitAnd(kinds, 64) != 0, 'helper', ''),
        if(bitAnd(kinds, 128) != 0, 'gc', '')]), ','),
    orig_src_ip String ALIAS replaceOne(IPv6NumToString(orig_src), '::ffff:', ''),
    orig_dst_ip String ALIAS replaceOne(IPv6NumToString(orig_dst), '::ffff:', ''),
    reply_src_ip String ALIAS replaceOne(IPv6NumToString(reply_src), '::ffff:', ''),
    reply_dst_ip String ALIAS replaceOne(IPv6NumToString(reply_dst), '::ffff:', '')
)
-- What comes twice has the same sorting key and is merged into one row.
ENGINE = ReplacingMergeTree
-- A day is dropped as a whole.
PARTITION BY toYYYYMMDD(second)
-- reply_dst and reply_dport are whom the world saw: the client itself, or its public
-- address and port. Other ends are looked for in the five minutes only.
ORDER BY (toStartOfFiveMinute(second), reply_dst, reply_dport, time, hash);
