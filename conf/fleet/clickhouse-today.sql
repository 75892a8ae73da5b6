-- After clickhouse.sql, for releases of today (23.8 and later): what ClickHouse 18.16
-- does not know.
--   clickhouse-client --multiquery < clickhouse-today.sql

-- Times and counters as differences, the rest by zstd, names once in a dictionary.
ALTER TABLE flowlog.flow
    MODIFY COLUMN time CODEC(Delta, ZSTD),
    MODIFY COLUMN hash CODEC(NONE),
    MODIFY COLUMN host LowCardinality(String),
    MODIFY COLUMN action LowCardinality(String),
    MODIFY COLUMN orig_src CODEC(ZSTD),
    MODIFY COLUMN orig_sport CODEC(ZSTD),
    MODIFY COLUMN orig_dst CODEC(ZSTD),
    MODIFY COLUMN orig_dport CODEC(ZSTD),
    MODIFY COLUMN reply_src CODEC(ZSTD),
    MODIFY COLUMN reply_sport CODEC(ZSTD),
    MODIFY COLUMN reply_dst CODEC(ZSTD),
    MODIFY COLUMN reply_dport CODEC(ZSTD),
    MODIFY COLUMN orig_packets CODEC(ZSTD),
    MODIFY COLUMN orig_bytes CODEC(ZSTD),
    MODIFY COLUMN reply_packets CODEC(ZSTD),
    MODIFY COLUMN reply_bytes CODEC(ZSTD),
    MODIFY COLUMN start CODEC(Delta, ZSTD),
    MODIFY COLUMN stop CODEC(Delta, ZSTD),
    MODIFY COLUMN ct_id CODEC(ZSTD),
    MODIFY COLUMN netns_cookie CODEC(ZSTD),
    MODIFY COLUMN state LowCardinality(String),
    MODIFY COLUMN helper LowCardinality(String),
    MODIFY COLUMN cause LowCardinality(String),
    MODIFY COLUMN comm LowCardinality(String),
    MODIFY COLUMN witness LowCardinality(String),
    MODIFY COLUMN source LowCardinality(String);

-- For the ends that the sorting key does not have.
ALTER TABLE flowlog.flow
    ADD INDEX IF NOT EXISTS orig_src orig_src TYPE bloom_filter GRANULARITY 1,
    ADD INDEX IF NOT EXISTS orig_dst orig_dst TYPE bloom_filter GRANULARITY 1,
    ADD INDEX IF NOT EXISTS reply_src reply_src TYPE bloom_filter GRANULARITY 1;

-- How long rows are kept.
ALTER TABLE flowlog.flow MODIFY TTL second + INTERVAL 180 DAY;
