#!/usr/bin/env python3
# needs: root net
# rows: B082 S51
"""Several workers on one host, prefixes of any length, pools that are taken, hosts without IPv6, any MTU."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
MTU = 1400
outside = lab.Node("outside")
lab.uplink(outside, mtu=MTU)
outside.do("listen", "198.51.100.1", 8080, "outside")

LONG = "worker-" + "x" * 300
workers = [lab.Worker(prefix=p) for p in ("codalab_worker_network", "codalab_worker_network", LONG + "a", LONG + "b")]
names = lab.links()
R.check(len(names) == 2 + 3 * 4, "four workers, two with one prefix, two with endless ones: three bridges each (B082)", names)
R.check(all(len(x) <= 15 for x in names), "link names fit")
alt = lab.sh("ip link show")
for x in ("codalab_worker_network_general", "codalab_worker_network_ext", "codalab_worker_network_int"):
    R.check(f"altname {x}" in alt, f"{x} is found by its name (B082)")
nets = [a["addr_info"][0]["local"] + "/" + str(a["addr_info"][0]["prefixlen"]) for a in json.loads(lab.sh("ip -j -4 addr"))
        if a["ifname"].startswith("cwk")]
R.check(len(set(nets)) == 12, "no two networks are the same", nets)

runs, leases = [], []
for i, w in enumerate(workers):
    runs.append(lab.Node(f"run{i}"))
    leases.append(w.attach("same-name", "external", runs[-1]))
    runs[-1].do("listen", "0.0.0.0", 9000, f"run{i}")
R.check(all(n.do("connect", "198.51.100.1", 8080).startswith("reached") for n in runs), "all have a way out")
R.check(not any(a.do("connect", leases[j][k], 9000, 0.5).startswith("reached") for i, a in enumerate(runs)
                for j in range(4) for k in ("general4", "addr4") if i != j),
        "no run reaches a run of another worker (S51)")
for dev in ("eth0", "eth1"):
    R.check(json.loads(runs[0].sh(f"ip -j link show dev {dev}"))[0]["mtu"] == MTU, f"{dev} has the uplink's MTU")
R.check(json.loads(runs[0].sh("ip -j link show dev lo"))[0]["operstate"] == "UNKNOWN" and
        "UP" in json.loads(runs[0].sh("ip -j link show dev lo"))[0]["flags"], "lo is up")

# one of them stops: the others go on, also with forwarding they share
workers[0].ok("detach", "same-name")
workers[0].ok("remove")
R.check(all(n.do("connect", "198.51.100.1", 8080).startswith("reached") for n in runs[1:]), "one stops, the others go on")
for w in workers[1:]:
    w.ok("detach", "same-name")
    w.ok("remove")
R.check(lab.links() == ["lo", "up0"] and not lab.tables(), "all stopped: nothing is left", lab.links())
R.check(lab.sh("cat /proc/sys/net/ipv4/conf/up0/forwarding").strip() == "0", "the uplink forwards no more")

# two processes with one state directory
a = lab.Worker()
b = lab.Worker(state=a.state)
n1, n2, n3 = lab.Node("n1"), lab.Node("n2"), lab.Node("n3")
l1, l2, l3 = a.attach("r1", "external", n1), b.attach("r2", "external", n2), a.attach("r3", "external", n3)
R.check(len({x["addr4"] for x in (l1, l2, l3)}) == 3, "two processes share a state directory: no address twice")
R.check(all(n.do("connect", "198.51.100.1", 8080).startswith("reached") for n in (n1, n2, n3)), "all have a way out")
R.check(a.ask("remove")[1] == "limit", "one does not remove what the other uses")
for r in ("r1", "r2", "r3"):
    b.ok("detach", r)
R.check(b.ok("remove") == [], "the last one does")
a.leave()

# pools
def opened(*opts):
    """The answer of an open that may fail."""
    try:
        w = lab.Worker(opts=opts)
    except RuntimeError as e:
        return str(e)
    w.ok("remove")
    return "ok"


lab.sh("ip addr add 10.50.0.1/16 dev up0")
R.check("overlaps 10.50.0.0/16" in opened("pool4=10.50.64.0/20"), "a pool the host has a route to is refused by name")
R.check(opened("pool4=10.51.0.0/16") == "ok", "a free one is taken")
R.check("/26" in opened("pool4=10.51.0.0/29"), "a pool that is too small is refused")
R.check("bits set" in opened("pool4=10.51.0.1/16"), "so is one that is not a network")
lab.sh("ip route add 10.216.0.0/13 via 198.51.100.1; ip route add 10.200.0.0/13 via 198.51.100.1")
w = lab.Worker()
n = lab.Node("n")
lease = w.attach("r", "external", n)
R.check(lease["addr4"].startswith("172."), "default pools that are routed are left alone", lease)
w.leave()
lab.sh("ip route del 10.216.0.0/13; ip route del 10.200.0.0/13")
w = lab.Worker(state=w.state)
R.check(w.ok("lease", "r")[2] == lease["addr4"], "a pool once chosen stays")
w.ok("reconcile")
w.ok("remove")

w = lab.Worker(opts=("pool4=10.60.0.0/26",))
nodes, full = [], None
for i in range(14):
    nodes.append(lab.Node(f"n{i}"))
    full = w.ask("attach", f"r{i}", "internal", nodes[-1].ns, "h")
R.check(full[:2] == ["error", "limit"], "a full pool says so", full)
w.ok("detach", "r5")
R.check(w.ask("attach", "r13", "internal", nodes[13].ns, "h")[0] == "ok", "and goes on when a run leaves")
w.ok("reconcile")
w.ok("remove")

# no IPv6
lab.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
w = lab.Worker()
n = lab.Node("n")
lease = w.attach("r", "external", n)
R.check(lease["addr6"] == "-" and n.do("connect", "198.51.100.1", 8080).startswith("reached"),
        "a host without IPv6: runs have IPv4 only, and work", lease)
R.check("ip6 daddr" not in lab.sh(f"nft list chain inet {lease['if'][:10]} nat"), "no IPv6 masquerade")
w.ok("detach", "r")
w.ok("remove")

# bad input
w = lab.Worker()
for bad in ("../x", ".", "a" * 65, "a/b", "a;b"):
    R.check(w.ask("attach", bad, "internal", n.ns, "h")[1] == "user", f"run name {bad[:10]!r} is refused")
R.check(w.ask("attach", "ok", "internal", n.ns, "h\"x")[1] == "user", "so is a host name that is none")
w.ok("remove")
R.end()
