#!/usr/bin/env python3
"""Every kind of window over the readings, computed by DuckDB.

    pip install duckdb==2.0.1
    python3 windows.py          # writes expected-*.ndjson.gz

Each file is of the jobs in `tests/e2e/duckdb.rs` with that window.
"""

import gzip
import json
import os

import duckdb

MINUTE, HOUR = 60_000, 3_600_000
# The mean as one division of two exact numbers: `avg` of a decimal rounds twice.
AGGREGATES = """
    count(*) as readings, count(value) as valued, sum(value) as total, min(value) as least, max(value) as most,
    (sum(value) * 100)::double / (100 * count(value)) as mean, count(*) filter (where kind = 'warn') as warnings,
    sum(value) filter (where value < 0 or kind = 'error') as odd
"""

QUERIES = {
    # [k · 7 min + 30 s, (k + 1) · 7 min + 30 s)
    "tumbling-7m": f"""
        with w as (select *, (taken - 30000) // (7 * {MINUTE}) * 7 * {MINUTE} + 30000 as window_start from readings)
        select sensor as key, window_start, window_start + 7 * {MINUTE} as window_end, {AGGREGATES}
        from w group by all
    """,
    # Days of Berlin: the first instant of a local date to that of the next.
    "tumbling-1d-berlin": f"""
        with w as (select *, timezone('Europe/Berlin', make_timestamptz(taken * 1000))::date as day from readings),
        bounded as (
            select *, epoch_ms(timezone('Europe/Berlin', day::timestamp)) as window_start,
                epoch_ms(timezone('Europe/Berlin', (day + 1)::timestamp)) as window_end
            from w
        )
        select sensor as key, window_start, window_end, {AGGREGATES} from bounded group by all
    """,
    # Windows of 25 min that begin every 10 min: two or three hold a reading.
    "hopping-25m-10m": f"""
        with w as (
            select *, unnest(range((taken - 25 * {MINUTE}) // (10 * {MINUTE}) + 1, taken // (10 * {MINUTE}) + 1)) * 10 * {MINUTE}
                as window_start
            from readings
        )
        select sensor as key, window_start, window_start + 25 * {MINUTE} as window_end, {AGGREGATES} from w group by all
    """,
    # (t − 30 min, t] of each reading; readings of one time see each other.
    "sliding-30m": f"""
        select sensor as key, taken - 30 * {MINUTE} as window_start, taken as window_end,
            count(*) over w as readings, count(value) over w as valued, sum(value) over w as total, min(value) over w as least,
            max(value) over w as most, (sum(value) over w * 100)::double / (100 * count(value) over w) as mean,
            count(*) filter (where kind = 'warn') over w as warnings,
            sum(value) filter (where value < 0 or kind = 'error') over w as odd
        from readings
        window w as (partition by sensor order by taken range between {30 * MINUTE - 1} preceding and current row)
    """,
    # A gap of 12 min; none crosses a multiple of 3 h.
    "session-12m-cut-3h": f"""
        with marked as (
            select *, taken - lag(taken) over w >= 12 * {MINUTE} or taken // (3 * {HOUR}) <> lag(taken) over w // (3 * {HOUR}) as is_first
            from readings window w as (partition by sensor order by taken)
        ),
        numbered as (
            select *, sum(coalesce(is_first, true)::integer) over (partition by sensor order by taken) as session from marked
        )
        select sensor as key, min(taken) as window_start,
            least(max(taken) + 12 * {MINUTE}, (min(taken) // (3 * {HOUR}) + 1) * 3 * {HOUR}) as window_end, {AGGREGATES}
        from numbered group by sensor, session
    """,
}

folder = os.path.dirname(os.path.abspath(__file__))
connection = duckdb.connect()
connection.execute(f"""
    create table readings as
    select * from read_json('{folder}/readings.ndjson.gz', format = 'newline_delimited',
        columns = {{sensor: 'varchar', taken: 'bigint', kind: 'varchar', value: 'decimal(18, 2)'}})
""")
for name, query in QUERIES.items():
    results = connection.execute(f"select * from ({query}) order by all")
    names = [column[0] for column in results.description]
    with open(os.path.join(folder, f"expected-{name}.ndjson.gz"), "wb") as file:
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as lines:
            for row in results.fetchall():
                values = [int(value * 100) / 100 if hasattr(value, "is_finite") else value for value in row]
                lines.write((json.dumps(dict(zip(names, values)), separators=(",", ":")) + "\n").encode())
