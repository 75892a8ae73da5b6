-- flowlog → Kafka → ClickHouse, for releases of today (23.8 and later). After
-- clickhouse.sql and clickhouse-today.sql; name your brokers and topic below.
--   clickhouse-client --multiquery < clickhouse-kafka.sql
--
-- What Kafka has are objects of KAFKA with format=json: docs/flow.schema.json says what
-- their members are.

CREATE TABLE IF NOT EXISTS flowlog.flow_queue (
    record String,
    host String,
    type String,
    kinds Array(String),
    action String,
    protocol Tuple(name String, number UInt8),
    state String,
    timeout UInt32,
    orig Tuple(src String, dst String, sport UInt16, dport UInt16, srckey UInt16, dstkey UInt16,
        type UInt8, code UInt8, id UInt16, packets Nullable(UInt64), bytes UInt64),
    reply Tuple(src String, dst String, sport UInt16, dport UInt16, srckey UInt16, dstkey UInt16,
        type UInt8, code UInt8, id UInt16, packets UInt64, bytes UInt64),
    master Tuple(src String, dst String, sport UInt16, dport UInt16, srckey UInt16,
        dstkey UInt16, id UInt16),
    status Array(String),
    mark UInt32,
    zone UInt16,
    id UInt32,
    start String,
    end String,
    helper String,
    labels String,
    netns Tuple(cookie UInt64, inum UInt32),
    cause String,
    portid UInt32,
    process Tuple(pid UInt32, comm String),
    witness String,
    source String,
    events UInt64
)
ENGINE = Kafka
SETTINGS
    kafka_broker_list = 'kafka.example.org:9092',
    kafka_topic_list = 'flowlog',
    kafka_group_name = 'clickhouse',
    kafka_format = 'JSONEachRow',
    -- At most as many as the topic has partitions.
    kafka_num_consumers = 1,
    -- Large blocks make few parts: a million rows, or what comes in ten seconds.
    kafka_max_block_size = 1048576,
    kafka_flush_interval_ms = 10000,
    input_format_skip_unknown_fields = 1,
    input_format_json_ignore_unknown_keys_in_named_tuple = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS flowlog.flow_from_queue TO flowlog.flow AS
WITH
    arrayMap(
        text -> IPv6StringToNumOrDefault(if(position(text, ':') = 0, concat('::ffff:', text), text)),
        [q.orig.src, q.orig.dst, q.reply.src, q.reply.dst, q.master.src, q.master.dst]) AS addresses,
    -- A protocol has one of them: ports, keys of GRE, an identifier of ICMP.
    q.orig.sport + q.orig.srckey + q.orig.id AS sport,
    q.orig.dport + q.orig.dstkey AS dport,
    q.reply.sport + q.reply.srckey + q.reply.id AS back_sport,
    q.reply.dport + q.reply.dstkey AS back_dport,
    q.protocol.number IN (1, 58) AS icmp
SELECT
    reinterpretAsUInt64(reverse(unhex(substring(q.record, 1, 16)))) AS time,
    reinterpretAsUInt64(reverse(unhex(substring(q.record, 17, 16)))) AS hash,
    q.host AS host,
    q.type AS type,
    q.type = 'expectation' ? 32 : arraySum(name -> transform(name,
        ['new', 'update', 'destroy', 'assured', 'confirmed', 'expect', 'helper', 'gc'],
        [1, 2, 4, 8, 16, 32, 64, 128], 0), q.kinds) AS kinds,
    q.action AS action,
    q.protocol.number AS protocol,
    addresses[1] AS orig_src,
    sport AS orig_sport,
    addresses[2] AS orig_dst,
    dport AS orig_dport,
    addresses[3] AS reply_src,
    back_sport AS reply_sport,
    addresses[4] AS reply_dst,
    back_dport AS reply_dport,
    q.type != 'flow' ? 0 :
        (q.reply.dst != q.orig.src OR (icmp ? back_sport : back_dport) != sport)
        + 2 * (q.reply.src != q.orig.dst OR (NOT icmp AND back_sport != dport)) AS nat,
    q.orig.type AS icmp_type,
    q.orig.code AS icmp_code,
    isNotNull(q.orig.packets) AS counted,
    ifNull(q.orig.packets, 0) AS orig_packets,
    q.orig.bytes AS orig_bytes,
    q.reply.packets AS reply_packets,
    q.reply.bytes AS reply_bytes,
    toUnixTimestamp64Nano(parseDateTime64BestEffortOrZero(q.start, 9, 'UTC')) AS start,
    toUnixTimestamp64Nano(parseDateTime64BestEffortOrZero(q.end, 9, 'UTC')) AS stop,
    q.timeout AS timeout,
    q.zone AS zone,
    q.mark AS mark,
    q.id AS ct_id,
    q.netns.cookie AS netns_cookie,
    q.netns.inum AS netns_inode,
    -- Those bits that have names.
    arraySum(name -> transform(name,
        ['expected', 'seen_reply', 'assured', 'confirmed', 'src_nat', 'dst_nat', 'dying',
         'fixed_timeout', 'offload', 'hw_offload'],
        [1, 2, 4, 8, 16, 32, 512, 1024, 16384, 32768], 0), q.status) AS status,
    q.state AS state,
    q.helper AS helper,
    toFixedString(unhex(q.labels), 16) AS labels,
    addresses[5] AS master_src,
    q.master.sport + q.master.srckey + q.master.id AS master_sport,
    addresses[6] AS master_dst,
    q.master.dport + q.master.dstkey AS master_dport,
    q.cause AS cause,
    q.portid AS portid,
    q.process.pid AS pid,
    q.process.comm AS comm,
    q.witness AS witness,
    q.source AS source,
    q.events AS events
FROM flowlog.flow_queue AS q;
