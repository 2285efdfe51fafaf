#!/usr/bin/env python3
"""Readings of thirty sensors around the two nights of 2025 on which clocks change in Berlin: the stream `readings.ndjson.gz`.

    python3 generate.py | gzip -9n > readings.ndjson.gz

A reading comes up to ten minutes after its time, most much sooner. Some have no value, some have the same time, and a sensor is
silent for hours now and then.
"""

import json
import random

BEGINNINGS = (1_743_202_800_000, 1_761_343_200_000)  # 2025-03-29 and 2025-10-25, 00:00 in Berlin
MINUTE = 60_000
DAYS = 3 * 24 * 60 * MINUTE
LATEST = 10 * MINUTE
STEP = 250  # times are multiples of it, so that some are the same

random.seed(2025)


def times(begin):
    """The times of one sensor's readings: bursts, and silence between them."""
    at = begin + random.randrange(60 * MINUTE)
    pace = random.choice((1, 3, 8)) * MINUTE
    while at < begin + DAYS:
        for _ in range(random.randrange(1, 40)):
            at += int(random.expovariate(1 / pace))
            yield at // STEP * STEP
            if random.random() < 0.03:
                yield at // STEP * STEP
        at += random.randrange(5 * MINUTE, 8 * 60 * MINUTE)


readings = []
for sensor in range(30):
    for begin in BEGINNINGS:
        for at in times(begin):
            reading = {"sensor": f"s{sensor:02}", "taken": at, "kind": random.choice(("ok", "ok", "ok", "warn", "error"))}
            cents = random.choice((None, "missing", *[random.randrange(-99_999, 100_000)] * 20))
            if cents != "missing":
                reading["value"] = None if cents is None else cents / 100
            delay = min(random.expovariate(1 / MINUTE), LATEST - 1)
            readings.append((at + delay, random.random(), reading))
for _, _, reading in sorted(readings, key=lambda arrived: arrived[:2]):
    print(json.dumps(reading, separators=(",", ":")))
