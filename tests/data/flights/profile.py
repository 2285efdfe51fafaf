#!/usr/bin/env python3
"""How far out of order the flights are, by the definition and nothing else: what `tidegate profile` has to find.

Line n goes to partition n mod 4. A record's lateness is how far its event time lies behind the largest one before it in its
partition. Quantiles are nearest rank over all records with an event time.

    python3 profile.py > expected-profile.json
"""

import gzip
import json
import math
import os

PARTITIONS = 4
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
DELAYS = [0, 100, 500, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 30 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE,
          HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY]
TARGET = 0.001

partitions = [[] for _ in range(PARTITIONS)]
folder = os.path.dirname(os.path.abspath(__file__))
with gzip.open(os.path.join(folder, "flights.ndjson.gz"), "rt") as lines:
    for number, line in enumerate(lines):
        partitions[number % PARTITIONS].append(json.loads(line)["departed"])


def lateness(times):
    newest, late = None, []
    for time in times:
        newest = time if newest is None else max(newest, time)
        late.append(newest - time)
    return late


def figures(departed):
    times = [time for time in departed if time is not None]
    late = lateness(times)
    ordered = sorted(late)
    rank = lambda share: ordered[max(math.ceil(len(ordered) * share), 1) - 1]
    may_be_late = math.floor(TARGET * len(late))
    return {
        "records": len(departed),
        "event_times": len(times),
        "first_event_time": min(times),
        "last_event_time": max(times),
        "out_of_order": sum(1 for l in late if l > 0),
        "lateness": {"p50": rank(0.5), "p90": rank(0.9), "p99": rank(0.99), "p999": rank(0.999), "max": ordered[-1]},
        "late": [sum(1 for l in late if l > delay) for delay in DELAYS],
        "delay_for_target": ordered[len(ordered) - 1 - may_be_late],
    }


print("[")
print(",\n".join(json.dumps(figures(times)) for times in partitions))
print("]")
