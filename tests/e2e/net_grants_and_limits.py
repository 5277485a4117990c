#!/usr/bin/env python3
# needs: root net
# rows: S51 B080
"""What the operator may say of external runs: host services and metadata allowed, destinations limited to a list, rates,
and what a run's links have carried."""
import concurrent.futures
import json
import os
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
DNS4, META4, META6 = "203.0.113.53", "169.254.169.254", "fd00:ec2::254"
RESOLV = "/dev/shm/net-grants-resolv.conf"
outside = lab.Node("outside")
lab.uplink(outside)
for a in ("203.0.113.9/32", DNS4 + "/32", META4 + "/32"):
    outside.sh(f"ip addr add {a} dev lo")
for a in ("2001:db8:9::9/128", META6 + "/128"):
    outside.sh(f"ip -6 addr add {a} dev lo")
host = lab.Node("host", own_namespace=False)
for node in (outside, host):
    for port in (8080, 8081):
        node.do("listen", "0.0.0.0", port, node.name)
        node.do("listen", "::", port, node.name)
outside.do("udp_echo", DNS4, 53)
with open(RESOLV, "w") as f:
    f.write(f"nameserver {DNS4}\n")

PLACES = {
    "host:8080": ("198.51.100.2", 8080), "host:8081": ("198.51.100.2", 8081), "host6:8080": ("2001:db8:1::2", 8080),
    "meta:8080": (META4, 8080), "meta:8081": (META4, 8081), "meta6:8080": (META6, 8080), "meta6:8081": (META6, 8081),
    "far:8080": ("203.0.113.9", 8080), "far:8081": ("203.0.113.9", 8081), "far6:8080": ("2001:db8:9::9", 8080),
    "router:8080": ("198.51.100.1", 8080)}
FAR = {"far:8080", "far:8081", "far6:8080", "router:8080"}


def reached(node, wanted):
    answers = node.do("connect_all", [p + ((20.0,) if name in wanted else ()) for name, p in PLACES.items()], 3.0)
    return {name for name, a in zip(PLACES, answers) if a.startswith("reached")}


for what, opts, wanted in (
        ("nothing granted", (), FAR),
        ("a port of the host", ("allow=host:8080",), FAR | {"host:8080", "host6:8080"}),
        ("all of the host", ("allow=host",), FAR | {"host:8080", "host:8081", "host6:8080"}),
        ("metadata", ("allow=metadata",), FAR | {"meta:8080", "meta:8081", "meta6:8080", "meta6:8081"}),
        ("metadata over one port, and IPv6 by address", (f"allow={META4}:8081,[{META6}]:8080",),
         FAR | {"meta:8081", "meta6:8080"}),
        ("a network taken away", ("deny=203.0.113.0/24",), FAR - {"far:8080", "far:8081"}),
        ("a list of the only destinations", ("only=203.0.113.0/24:8080,[2001:db8:9::/64]:8080",),
         {"far:8080", "far6:8080"}),
        ("such a list does not open what is denied to all", (f"only={META4},198.51.100.2,203.0.113.9",),
         {"far:8080", "far:8081"}),
        ("such a list beside a grant", ("only=198.51.100.1", "allow=host:8081"), {"router:8080", "host:8081"})):
    w = lab.Worker(opts=(f"resolv={RESOLV}",) + opts)
    ext, internal = lab.Node("ext"), lab.Node("int")
    w.attach("e", "external", ext)
    w.attach("i", "internal", internal)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        got, got_internal = pool.map(reached, (ext, internal), (wanted, ()))
    R.check(got == wanted, f"{what}: an external run reaches exactly that (S51)", (opts, got ^ wanted))
    R.check(ext.do("udp_ask", DNS4, 53, "q") == "reached echo q", f"{what}: resolvers answer (B080)")
    R.check(not got_internal, f"{what}: an internal run reaches nothing")
    for n in (ext, internal):
        n.end()
    w.ok("detach", "e")
    w.ok("detach", "i")
    w.ok("remove")
    w.leave()

for bad, why in (("allow=nonsense", "nonsense"), ("allow=10.0.0.0/8:0", "port 0"), ("allow=[fd00::1]x", "[fd00::1]x"),
                 ("allow=10.0.0.1:65536", "65536"), ("only=host", "--network-allow"), ("out=10", "bytes a second"),
                 ("allow=host:", "host:"), ("deny=10.0.0.1/8", "bits set")):
    try:
        lab.Worker(opts=(bad,))
        answer = "ok"
    except RuntimeError as e:
        answer = str(e)
    R.check(" user " in answer and why in answer, f"{bad!r} is refused by name", answer)

# Rates. A limit can only make things take longer than asserted here, however slow the machine is.
OUT, IN, SIZE = 1000000, 2000000, 3000000
outside.do("bulk", "203.0.113.9", 8082)
w = lab.Worker(opts=(f"resolv={RESOLV}", f"out={OUT}", f"in={IN}"))
run, other = lab.Node("run"), lab.Node("other")
lease = w.attach("run", "external", run)
w.attach("other", "internal", other)
before = [int(x) for x in w.ok("traffic", "run")]
down = run.do("transfer", "203.0.113.9", 8082, SIZE)
up = run.do("transfer", "203.0.113.9", 8082, -SIZE)
R.check(down > (SIZE - 200000) / IN, f"receiving keeps to {IN} bytes a second", f"{SIZE} in {down:.2f} s")
R.check(up > (SIZE - 200000) / OUT, f"sending keeps to {OUT} bytes a second", f"{SIZE} in {up:.2f} s")
sent, received = (b - a for a, b in zip(before, [int(x) for x in w.ok("traffic", "run")]))
R.check(SIZE < sent < 2 * SIZE and SIZE < received < 2 * SIZE, "and is counted, both ways", (sent, received))
R.check(w.ask("traffic", "nobody")[1] == "absent", "a run that is none has no counts")

# a hostile run sends around its own queue: what the host lets in keeps to the limit all the same
m = json.loads(lab.sh("ip -j link show dev codalab_worker_network_ext"))[0]["address"]
mine = json.loads(run.sh("ip -j link show dev eth1"))[0]["address"]


def udp_frame(n):
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 28 + n, 1, 0, 64, 17, 0) + socket.inet_aton(lease["addr4"]) + \
        socket.inet_aton("203.0.113.9")
    s = sum(struct.unpack("!10H", ip))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    ip = ip[:10] + struct.pack("!H", ~s & 0xffff) + ip[12:]
    return bytes.fromhex(m.replace(":", "") + mine.replace(":", "")) + b"\x08\x00" + ip + \
        struct.pack("!HHHH", 4444, 7070, 8 + n, 0) + bytes(n)


def arrived():
    return json.loads(outside.sh("ip -j -s link show dev out0"))[0]["stats64"]["rx"]["bytes"]


begin, a = time.monotonic(), arrived()
tried, seconds = run.do("blast", "eth1", udp_frame(1400).hex(), 8000)
lab.sh("sleep 0.2")
got, took = arrived() - a, time.monotonic() - begin
most = OUT * 1.07 * (1 + took) + 70000  # the bucket holds a second's worth
R.check(got < most or tried < most, "a run that goes around its own queue keeps to it too", (tried, seconds, took, got, most))
R.check(got > 0, "though what is within the limit arrives")
lab.sh("nft flush ruleset")
w.ok("reconcile", "run", "other")
R.check(lease["if"] in lab.sh(f"nft list set bridge {lease['if'][:10]} out"), "rules made anew have the limit again")
lab.sh(f"nft flush set bridge {lease['if'][:10]} out")
third = lab.Node("third")
w.attach("third", "external", third)
R.check(lease["if"] in lab.sh(f"nft list set bridge {lease['if'][:10]} out"), "a limit taken away is put back")
for r in ("run", "other", "third"):
    w.ok("detach", r)
R.check("elements" not in lab.sh(f"nft list set bridge {lease['if'][:10]} out"), "limits go with their runs")
w.ok("remove")
os.unlink(RESOLV)
R.end()
