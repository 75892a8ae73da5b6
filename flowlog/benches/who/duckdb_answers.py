"""Answers the questions of the benchmark `who` by DuckDB, and compares.

duckdb_answers.py ARCHIVE ANSWERS: a directory of Parquet files, and a file with
a question and flowlog's answer in each line. The exit code is 1 if one differs.
"""

import json
import sys
from datetime import datetime, timezone

import duckdb


def nanoseconds(text):
    """Since the epoch, of 2026-11-20T14:05:07.123456789Z."""
    if text is None:
        return None
    whole, fraction = text.rstrip("Z").split(".")
    seconds = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc).timestamp()
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


archive, file = sys.argv[1:]
with open(file) as lines:
    asked = [json.loads(line) for line in lines]

db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
db.execute(
    "CREATE TABLE asked (id INTEGER, address VARCHAR, port INTEGER, first BIGINT, last BIGINT)"
)
db.executemany(
    "INSERT INTO asked VALUES (?, ?, ?, ?, ?)",
    [[q["id"], q["address"], q["port"], q["first"], q["last"]] for q in asked],
)
# Both tuples: what NAT has not changed is in the original one.
db.execute(
    f"""CREATE VIEW flow AS SELECT
        epoch_ns(time) AS time, epoch_ns(start) AS start, epoch_ns(stop) AS stop, protocol,
        orig_src, orig_sport, orig_dst, orig_dport,
        coalesce(nat_src, orig_src) AS reply_dst, coalesce(nat_sport, orig_sport) AS reply_dport,
        coalesce(nat_dst, orig_dst) AS reply_src, coalesce(nat_dport, orig_dport) AS reply_sport
    FROM read_parquet('{archive}/*/*.parquet') WHERE kind LIKE 'destroy%'"""
)
ends = ["orig_src", "orig_dst", "reply_src", "reply_dst"]
ports = ["orig_sport", "orig_dport", "reply_sport", "reply_dport"]
found = " UNION ".join(
    f"""SELECT id, start, stop, protocol, orig_src, orig_dst, orig_sport, orig_dport
    FROM flow JOIN asked ON {end} = address AND {port} = port
    WHERE coalesce(start, 0) <= last AND coalesce(stop, time) >= first"""
    for end, port in zip(ends, ports)
)
right = {q["id"]: [] for q in asked}
for id, *connection in db.execute(found).fetchall():
    right[id].append(tuple(connection))

wrong = 0
for q in asked:
    ours = [
        (nanoseconds(start), nanoseconds(end), *rest) for start, end, *rest in q["connections"]
    ]
    theirs = right[q["id"]]
    if sorted(ours, key=str) != sorted(theirs, key=str):
        wrong += 1
        print(f"differs: {q['address']}:{q['port']} from {q['first']}: {ours} is not {theirs}")
connections = sum(map(len, right.values()))
print(f"{len(asked)} questions, {connections} connections by DuckDB, {wrong} answers differ")
sys.exit(wrong > 0 or connections == 0)
