#!/usr/bin/python3
"""latches.py <LIST: reads `latchkey list --json` and prints one line a latch, "-" for null:

STATE LOCAL-PORT REMOTE PEER-ID LOCAL-ID MODE SUITE:BITS REASON
"""

import json
import sys

document = json.load(sys.stdin)
if document["schema"] != 1:
    sys.exit("another schema")
for latch in document["latches"]:
    protection = latch["protection"] or {}
    remote = latch["remote"] or {}
    suite = protection.get("encryption")
    fields = [
        latch["state"],
        (latch["local"] or {}).get("port"),
        remote.get("address"),
        latch["peer_id"],
        latch["local_id"],
        protection.get("mode"),
        suite and f"{suite}:{protection['key_bits']}",
        latch["reason"],
    ]
    print(*("-" if field is None else field for field in fields))
