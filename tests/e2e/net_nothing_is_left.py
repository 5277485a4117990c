#!/usr/bin/env python3
# needs: root net
# rows: S51 B082
"""Networks made and killed by the hundred leave nothing.

NET_LEAK_RUNS sets how many (100; `make leak-net`: 2000); half of the namespaces die before they are detached, half after;
now and then the worker is killed instead, with runs on its networks.
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
N = int(os.environ.get("NET_LEAK_RUNS", "100"))
LIVE = 25

outside = lab.Node("outside")
lab.uplink(outside)


def entries():
    return lab.neighbours(lab.sh), lab.sh("ip route; ip -6 route"), lab.forwarding(lab.sh)


def soon(look, wanted):
    """What it shows, once it is that; the kernel ends links and what belongs to them a little later."""
    for _ in range(100):
        found = look()
        if found == wanted:
            break
        time.sleep(0.1)
    return found


before = lab.links(), lab.tables(), entries()
forwarding = lab.sh("sysctl -a 2>/dev/null | grep -E '^net.ipv[46].conf.*forwarding'")
worker = lab.Worker()
made = lab.links(), lab.tables(), (lab.neighbours(lab.sh), lab.forwarding(lab.sh))
taken, times, live = set(), [], []


def namespace():
    p = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    while os.readlink(f"/proc/{p.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        pass
    return p


reused, crashes, left = False, 0, 0
fds = len(os.listdir(f"/proc/{worker.p.pid}/fd"))
for i in range(N):
    p = namespace()
    lease = worker.attach(f"0x{i:032x}", "external" if i % 2 else "internal", f"/proc/{p.pid}/ns/net")
    reused = reused or lease["general4"] in {x[1]["general4"] for x in live}
    times.append(int(lease["ns"]))
    live.append((p, lease, i))
    if len(live) == LIVE and i % 200 == 99:  # a crash with all of them on; a third of them ended meanwhile
        worker.kill()
        for p, lease, j in live[::3]:
            p.kill()
            p.wait()
        gone = {j for p, lease, j in live[::3]}
        live = [x for x in live if x[2] not in gone]
        worker = lab.Worker(state=worker.state)
        worker.ok("reconcile", *(f"0x{j:032x}" for p, lease, j in live))
        crashes += 1
        links = [x for x in lab.links() if x not in made[0]]
        left += len(links) - 2 * len(live)
    if len(live) >= LIVE or i == N - 1 or (live and i % 200 == 99):
        for p, lease, j in live:
            if j % 4 < 2:
                p.kill()
                p.wait()
            worker.ok("detach", f"0x{j:032x}")
            if j % 4 >= 2:
                p.kill()
                p.wait()
        live = []

times_ms = sorted(t / 1e6 for t in times)
print(f"# {N} attached and detached; attach took {times_ms[len(times) // 2]:.2f} ms at the median, "
      f"{times_ms[-1]:.2f} ms at most")
R.check(not reused, "no address was given to two runs at once")
R.check(crashes > 0 and left == 0, "after a crash there are the links of live runs, no more and no fewer", (crashes, left))
R.check(len(os.listdir(f"/proc/{worker.p.pid}/fd")) == fds, "the worker has as many descriptors as at first")
neighbours, elements = lab.sh("ip neigh; bridge fdb").count("PERMANENT"), lab.sh("nft list ruleset").count(" . 02:")
leases = len([f for f in os.listdir(worker.state) if f.endswith(".lease")])
print(f"# made and killed: {N} networks with {2 * N} links, {crashes} crashes of the worker; left: "
      f"{len(set(lab.links()) - set(made[0]))} links, {neighbours} neighbours, {elements} set elements, {leases} leases, "
      f"{len(lab.sh('ip netns').split())} named namespaces")
R.check(lab.links() == made[0], "links are as before the first run", set(lab.links()) ^ set(made[0]))
found = soon(lambda: (lab.neighbours(lab.sh), lab.forwarding(lab.sh)), made[2])
R.check(found == made[2], "so are neighbours and forwarding entries", (found, made[2]))
R.check(lab.sh("nft list ruleset").count("elements = {") == 1, "no set element is left but the resolvers")
R.check(not [f for f in os.listdir(worker.state) if f.endswith(".lease")], "no lease is left")
worker.ok("remove")
R.check((lab.links(), lab.tables()) == before[:2], "links and tables are as before the worker")
found = soon(entries, before[2])
R.check(found == before[2], "routes, neighbours too", (found, before[2]))
now = lab.sh("sysctl -a 2>/dev/null | grep -E '^net.ipv[46].conf.*forwarding'")
R.check(now == forwarding, "and the forwarding switches", set(now.split("\n")) ^ set(forwarding.split("\n")))
worker.leave()
R.end()
