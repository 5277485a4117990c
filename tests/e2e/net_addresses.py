#!/usr/bin/env python3
# needs: root net
# rows: S51 B080
"""Addresses: as many runs at once as the pool has, none given twice, exact after a crash.

NET_AT_ONCE: how many runs of the default pool at once (120; `make leak-net`: 1000).
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
N = int(os.environ.get("NET_AT_ONCE", "120"))
outside = lab.Node("outside")
lab.uplink(outside)


def addresses(worker, ids):
    return [a for i in ids for a in worker.ok("lease", f"m{i}")[:4]]


# a small pool, to its last address: 10.77.0.0/24 is four networks of 64 addresses, 61 of each for runs
SLOTS = 61
w = lab.Worker(opts=("pool4=10.77.0.0/24",))
w.ok("many", "0", str(SLOTS), "external")
first = addresses(w, range(SLOTS))
R.check(len(set(first)) == 4 * SLOTS, "a pool gives all its addresses, each once", len(set(first)))
R.check(w.ask("many", "100", "1", "internal")[1] == "limit", "and then says that it is full")
w.kill()
w = lab.Worker(state=w.state, opts=("pool4=10.77.0.0/24",))
LIVE = range(0, SLOTS, 3)
w.ok("reconcile", *(f"m{i}" for i in LIVE))
R.check(addresses(w, LIVE) == [a for i in LIVE for a in first[4 * i:4 * i + 4]],
        "after a crash live runs have the addresses they had")
R.check(all(w.ask("lease", f"m{i}")[1] == "absent" for i in range(SLOTS) if i not in LIVE), "and no dead run has any")
free = SLOTS - len(LIVE)
w.ok("many", "200", str(free), "internal")
again = addresses(w, LIVE) + addresses(w, range(200, 200 + free))
R.check(len(set(again)) == 4 * SLOTS, "exactly the addresses of dead runs are given again", len(set(again)))
R.check(w.ask("many", "300", "1", "external")[1] == "limit", "not one more")
w.ok("detach", "m200")
w.ok("many", "301", "1", "external")
R.check(len(set(addresses(w, LIVE) + addresses(w, range(201, 200 + free)) + addresses(w, [301]))) == 4 * SLOTS,
        "one given back is given again")
w.ok("reconcile")
w.ok("remove")
w.leave()

w = lab.Worker()
w.ok("many", "0", str(N), "external")
got = addresses(w, range(N))
R.check(len(set(got)) == 4 * N, f"{N} runs at once, {4 * N} addresses, no two the same", len(set(got)))
R.check(len(lab.links()) == 2 + 3 + 2 * N, "with two links each", len(lab.links()))
w.ok("few", "0", str(N // 2))
w.ok("many", str(N), str(N // 2), "internal")
now = addresses(w, range(N // 2, N + N // 2))
R.check(len(set(now)) == 4 * N, "half of them gone and half new: none twice", len(set(now)))
reused = set(got[:4 * (N // 2)]) & set(now)
R.check(not reused or N + N // 2 > 1022, "what was given back rests while there are others", sorted(reused)[:3])
w.ok("few", str(N // 2), str(N))
R.check(len(lab.links()) == 5, "all gone", lab.links()[:9])
w.ok("remove")
R.end()
