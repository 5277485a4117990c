#!/usr/bin/env python3
# needs: root net
# rows: S51 B082 D71
"""Killed at every point at which anything changes, in each of its operations: the next start leaves what live runs need.

NET_CRASH_STEP: every how many-th point of opening, reconciling and removing (7; 1: all). Attaching and detaching: all.
"""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab
import net_trace

lab.run_in_lab()
R = lab.Report()
STEP = int(os.environ.get("NET_CRASH_STEP", "7"))
outside = lab.Node("outside")
lab.uplink(outside)
outside.do("listen", "198.51.100.1", 8080, "outside")
host = lab.Node("host", own_namespace=False)
live, internal, new = lab.Node("live"), lab.Node("internal"), lab.Node("new")
live.do("listen", "0.0.0.0", 9000, "live")
before = lab.links(), lab.tables()
FORWARDING = "cat /proc/sys/net/ipv4/conf/up0/forwarding"
worker = lab.Worker()
lease = worker.attach("live", "external", live)
worker.attach("internal", "internal", internal)
tag = lease["if"].split("x0")[0]


def picture():
    """All that there is of ours: links, addresses, neighbours, forwarding entries but for the kernel's own multicast ones,
    rules, leases."""
    brief = lab.sh(f"ip -br link | awk '{{print $1, $2}}' | grep {tag}; ip -br addr | grep {tag}; ip neigh | grep {tag}; "
                   f"bridge fdb | grep {tag} | grep -vE '^(33:33|01:00:5e):'; "
                   f"{FORWARDING}; nft -s list table inet {tag}; nft -s list table bridge {tag}")
    files = [f for f in os.listdir(worker.state) if f not in ("lock", "network.json")]
    return sorted(brief.split("\n")) + sorted(files)


def works():
    """Soon: what was made anew answers when its neighbours have been asked, on a busy machine after a while."""
    for _ in range(10):
        if reaches():
            return not live.do("connect", "198.51.100.2", 22, lab.SILENCE).startswith("reached")
        time.sleep(0.2)
    return False


def reaches():
    return live.do("connect", "198.51.100.1", 8080).startswith("reached outside") and \
        host.do("connect", lease["general4"], 9000).startswith("reached live")


worker.ok("reconcile", "live", "internal")
R.check(works(), "a live run works")
time.sleep(1)
wanted = picture()


def settled():
    """The picture, once the kernel has told the state of links that were just made."""
    for _ in range(100):
        now = picture()
        if now == wanted:
            break
        time.sleep(0.1)
    return now


def restarted():
    """A new process on what the dead one left."""
    global worker
    worker.p.wait()
    worker.p.stdin.close()
    worker.p.stdout.close()
    worker = lab.Worker(state=worker.state)
    worker.ok("reconcile", "live", "internal")


def crash(what, prepare, command, step):
    """Do it again and again, killed one change later each time, until it comes to its end."""
    bad, points, at = [], 0, 1
    while True:
        prepare()
        if not net_trace.run_until(worker.p.pid, lambda: (worker.p.stdin.write(command() + "\n"), worker.p.stdin.flush()),
                                   at):
            break
        points += 1
        restarted()
        now = settled()
        if now != wanted:
            bad.append((at, sorted(set(now) ^ set(wanted))))
        at += step
    worker.p.stdout.readline()
    worker.kill()
    restarted()
    R.check(points >= 3, f"{what}: {points} crash points", at)
    R.check(not bad, f"{what}: killed at each of them, the next start leaves exactly what live runs need", bad[:3])
    R.check(works(), f"{what}: and the live run goes on")
    print(f"# {what}: {points} crash points, {len(bad)} left anything", flush=True)


def bare():
    """A process that has nothing open yet."""
    global worker
    state = worker.state
    worker.kill()
    worker.p.stdin.close()
    worker.p.stdout.close()
    worker.p = subprocess.Popen([lab.TOOL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker.state = state


def attached():
    worker.attach("new", "external", new)


crash("attach", lambda: None, lambda: f"attach new external {new.ns} abc", 1)
crash("detach", attached, lambda: "detach new", 1)
crash("attach of a run that was attached", attached, lambda: f"attach new internal {new.ns} abc", 3)
crash("open", bare, lambda: f"open {worker.state} codalab_worker_network", STEP)


def broken():
    lab.sh(f"nft flush ruleset; ip link del {tag}int; ip link set {lease['if']} nomaster; "
           f"echo 0 > /proc/sys/net/ipv4/conf/up0/forwarding")


crash("reconcile, with everything broken before", broken, lambda: "reconcile live internal", STEP)

# a clean stop that is cut short: the next start and stop leave nothing
worker.ok("reconcile")
bad, points, at = [], 0, 1
while net_trace.run_until(worker.p.pid, lambda: (worker.p.stdin.write("remove\n"), worker.p.stdin.flush()), at):
    points += 1
    at += max(1, STEP // 2)
    worker.p.wait()
    worker = lab.Worker(state=worker.state)
    worker.ok("reconcile")
    worker.ok("remove")
    if (lab.links(), lab.tables()) != before or lab.sh(FORWARDING).strip() != "0":
        bad.append((at, lab.links(), lab.tables()))
    worker.leave()
    worker = lab.Worker(state=worker.state)
print(f"# remove: {points} crash points, {len(bad)} left anything")
R.check(points >= 3 and not bad, "remove: killed anywhere, the next start and stop leave nothing", (points, bad[:3]))
R.check((lab.links(), lab.tables()) == before, "nor does one that is not cut short", lab.links())
R.end()
