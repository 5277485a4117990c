#!/usr/bin/env python3
# needs: root net
# rows: S51 B080
"""Addresses: as many runs at once as the pool has, none given twice, exact after a crash.

NET_AT_ONCE: how many runs of the default pool at once (180, more than one bridge takes; `make leak-net`: 1000).
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
N = int(os.environ.get("NET_AT_ONCE", "180"))
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
bridges = 3 * ((N + 169) // 170)
R.check(len(lab.links()) == 2 + bridges + 2 * N, "with two links each, and three bridges for each 170 of them", len(lab.links()))

# a run on the first bridges, others on the last ones: apart from each other, and with what they need
w.ok("detach", "m0")
host = lab.Node("host", own_namespace=False)
outside.do("listen", "198.51.100.1", 8080, "outside")
host.do("listen", "0.0.0.0", 8080, "host")
nodes = [lab.Node(n) for n in ("first", "last", "late")]
leases = [w.attach(n.name, "external", n) for n in nodes[:2]]
for n in nodes:
    n.do("listen", "0.0.0.0", 9000, n.name)
    n.do("listen", "::", 9000, n.name)
tag = leases[0]["if"][:10]
R.check([x["general4"].split(".")[2] for x in leases][0] != leases[1]["general4"].split(".")[2], "on different bridges", leases)


def right(n, lease, other):
    """What is wrong with what n reaches, and who reaches it."""
    bad = [] if n.do("connect", "198.51.100.1", 8080) == "reached outside 198.51.100.2" else ["no way out"]
    bad += [k for k in ("general4", "general6") if not host.do("connect", lease[k], 9000).startswith("reached")]
    places = [(other[k], 9000) for k in ("general4", "general6", "addr4", "addr6")] + [("198.51.100.2", 8080)]
    return bad + [p for p, a in zip(places, n.do("connect_all", places, 1.0)) if a.startswith("reached")]


R.check(right(nodes[0], leases[0], leases[1]) == [], "a run on the first bridges is as it should be (S51)")
R.check(right(nodes[1], leases[1], leases[0]) == [], "so is one on the last (S51)")
last = f"{tag}ext{N // 170}"
lab.sh(f"ip link del {last}")
leases.append(w.attach("late", "external", nodes[2]))
R.check(right(nodes[2], leases[2], leases[1]) == [] and right(nodes[1], leases[1], leases[0]) == [],
        "someone deletes one of the last bridges: the next attach makes it and puts its runs on it again")
for n in nodes:
    w.ok("detach", n.name)
w.ok("many", "0", "1", "external")
w.ok("few", "0", str(N // 2))
w.ok("many", str(N), str(N // 2), "internal")
now = addresses(w, range(N // 2, N + N // 2))
R.check(len(set(now)) == 4 * N, "half of them gone and half new: none twice", len(set(now)))
w.ok("few", str(N // 2), str(N))
w.ok("reconcile")
R.check(len(lab.links()) == 5, "all gone, also the bridges that nobody needs", lab.links()[:9])
w.ok("remove")
R.end()
