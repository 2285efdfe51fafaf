#!/usr/bin/env python3
"""The results of `docs/jobs/flights-aggregates.yaml`, computed by DuckDB. Line n goes to partition n mod 8, where its offset is n div 8.

    pip install duckdb==2.0.1
    python3 aggregates.py | gzip -9n > expected-aggregates-1d-carrier.ndjson.gz
"""

import csv
import gzip
import json
import os
import tempfile

import duckdb

PARTITIONS = 8
DAY = 86_400_000

folder = os.path.dirname(os.path.abspath(__file__))
connection = duckdb.connect()
connection.execute("""
    create table flights (
        departed bigint, partition integer, o integer, carrier varchar, flight integer, origin varchar, dest varchar,
        delay integer, distance integer
    )""")
rows = []
with gzip.open(os.path.join(folder, "flights.ndjson.gz"), "rt") as lines:
    for number, line in enumerate(lines):
        f = json.loads(line)
        rows.append((f["departed"], number % PARTITIONS, number // PARTITIONS, f["carrier"], f["flight"], f["origin"],
                     f["dest"], f["delay"], f["distance"]))

with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="") as table:
    csv.writer(table).writerows(["" if value is None else value for value in row] for row in rows)
    table.flush()
    connection.execute(f"copy flights from '{table.name}' (header false, nullstr '')")

# `place` is the order of first, last and collect: event time, partition, offset.
results = connection.execute(f"""
    with f as (
        select *, departed // {DAY} * {DAY} as window_start, row(departed, partition, o) as place
        from flights where departed is not null
    ),
    counted as (
        select carrier, window_start, dest, count(*) as n from f group by all
    ),
    top as (
        select carrier, window_start,
            list(struct_pack(value := dest, count := n) order by n desc, dest)[1:3] as top_destinations
        from counted group by all
    )
    select carrier as key, window_start, window_start + {DAY} as window_end,
        count(*) as flights,
        count(*) filter (where delay >= 15 and origin = 'JFK') as late_from_jfk,
        sum(distance) filter (where not (dest = 'ATL' or delay < 0)) as far,
        var_samp(delay) as variance, stddev_samp(delay) as deviation,
        arg_min(delay, place) as first_delay, arg_max(delay, place) as last_delay,
        arg_min(dest, place) as first_destination, arg_max(dest, place) as last_destination,
        quantile_disc(delay, 0.5) as median, [quantile_disc(distance, 0.1), quantile_disc(distance, 0.99)] as distances,
        count(distinct dest) as destinations, count(distinct flight) as numbers,
        any_value(top_destinations) as top_destinations,
        list(flight order by place)[1:5] as first_flights
    from f join top using (carrier, window_start)
    group by carrier, window_start
    order by key, window_start
""")
names = [column[0] for column in results.description]
for row in results.fetchall():
    print(json.dumps(dict(zip(names, row)), separators=(",", ":")))
