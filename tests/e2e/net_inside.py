#!/usr/bin/env python3
# needs: root net
# rows: B081 B177 S57
"""Netcat's way into a run (netns/inside.h): ports on the run's loopback only, IPv6, large and slow replies, many at once,
and one that hangs delays nobody."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
lab.sh("ip link set lo up")
worker = lab.Worker()
run, other = lab.Node("run"), lab.Node("other")
lease = worker.attach("run", "internal", run)
host = lab.Node("host", own_namespace=False)
host.do("listen", "127.0.0.1", 5005, "host")
run.do("listen", "127.0.0.1", 5005, "loopback")
run.do("listen", "::1", 5006, "loopback6")
run.do("listen", lease["general4"], 5007, "general")

for what, addr, port, answer in (
        ("a port on the run's 127.0.0.1 only", "127.0.0.1", 5005, "loopback"),
        ("a port on the run's ::1 only", "::1", 5006, "loopback6"),
        ("a port on the run's general address only, from inside", lease["general4"], 5007, "general")):
    R.check(worker.ok("connect", run.ns, addr, str(port))[0] == answer, f"{what} is reached (B081 S57)")
R.check(not host.do("connect", lease["general4"], 5005, 1.0).startswith("reached"), "which the bridge does not reach")
R.check(worker.ask("connect", run.ns, "127.0.0.1", "5006")[1:3] == ["remote", "111"],
        "a port that nobody has in there is refused, though the host has one like it (B177)")
R.check(worker.ask("connect", run.ns, "203.0.113.1", "80")[1:3] == ["remote", "101"],
        "what a run cannot reach is not reached through it either")
for bad in ("localhost", "127.0.0.1%lo", "", "::1]"):
    if bad:
        R.check(worker.ask("connect", run.ns, bad, "5005")[1] == "user", f"{bad!r} is no numeric address (S57)")

LARGE = 256 << 20
run.do("stream", "127.0.0.1", 5010, LARGE, 1 << 20, 0)
R.check(worker.ok("connects", run.ns, "127.0.0.1", "5010", "1") == [str(LARGE)], "a reply of 256 MiB comes whole")
run.do("stream", "::1", 5011, 40, 1, 0.02)
R.check(worker.ok("connects", run.ns, "::1", "5011", "3") == ["120"], "a reply that comes byte by byte comes whole")
run.do("stream", "127.0.0.1", 5012, 100000, 10000, 0)
R.check(worker.ok("connects", run.ns, "127.0.0.1", "5012", "200") == [str(200 * 100000)], "200 at once, all whole")
R.check(worker.ok("connects", run.ns, "127.0.0.1", "5012", "200") == [str(200 * 100000)], "and once more")

run.do("deaf", "127.0.0.1", 5013)
worker.ok("stuck", run.ns, "127.0.0.1", "5013")
worker.attach("other", "internal", other)
R.check(worker.ok("connect", run.ns, "127.0.0.1", "5005")[0] == "loopback", "while one hangs, others are answered")
worker.ok("detach", "other")
R.check(worker.ok("stuck-done") == ["no"], "runs come and go meanwhile: it delays nobody")

# the worker itself stays where it is, and its descriptors do not grow
ns = os.readlink(f"/proc/{worker.p.pid}/ns/net")


def namespace(task):
    try:
        return os.readlink(f"/proc/{worker.p.pid}/task/{task}/ns/net")
    except OSError:  # it is just ending
        return ns


tasks = {namespace(t) for t in os.listdir(f"/proc/{worker.p.pid}/task")}
R.check(tasks == {ns} == {os.readlink("/proc/self/ns/net")}, "no thread of the worker stays in a run's namespace (S57)")


def descriptors():
    worker.ok("stuck-done")  # by its answer the command before is all over
    return sorted(os.readlink(f"/proc/{worker.p.pid}/fd/{n}") for n in os.listdir(f"/proc/{worker.p.pid}/fd"))


fds = descriptors()
worker.ok("connects", run.ns, "127.0.0.1", "5012", "50")
R.check(descriptors() == fds, "nor do descriptors grow", (fds, descriptors()))
run.end()
R.end()
