#!/usr/bin/env python3
# needs: root net
# rows: S51 B080 B082
"""Hosts that are different: with and without br_netfilter, an uplink of MTU 1400 or 9000, several uplinks, no default
route, systemd-resolved, search domains. (Without IPv6: net_many_workers.py; older iptables: net_lives_with_firewalls.py.)"""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
RESOLV = "/dev/shm/net-odd-resolv.conf"
outside = lab.Node("outside")
lab.uplink(outside, mtu=9000)
lab.sh("mount -t tmpfs none /run")
host = lab.Node("host", own_namespace=False)
for n in (outside, host):
    n.do("listen", "0.0.0.0", 8080, n.name)
    n.do("listen", "::", 8080, n.name)
for a in ("198.51.100.1", "2001:db8:1::1"):
    outside.do("udp_echo", a, 53)


def with_runs(opts=()):
    w = lab.Worker(opts=opts)
    nodes = [lab.Node(f"run{i}") for i in range(2)] + [lab.Node("internal")]
    leases = [w.attach(n.name, "internal" if n.name == "internal" else "external", n) for n in nodes]
    for n in nodes:
        n.do("listen", "0.0.0.0", 9000, n.name)
        n.do("listen", "::", 9000, n.name)
    return w, nodes, leases


def done(w, nodes):
    for n in nodes:
        w.ok("detach", n.name)
        n.end()
    w.ok("remove")
    w.leave()


# br_netfilter: bridged packets pass the rules for routed ones too, or not; where the module is not there: not
CALLS = [f"net.bridge.bridge-nf-call-{x}" for x in ("iptables", "ip6tables", "arptables")]
there = os.path.exists("/proc/sys/net/bridge")
for on in ("1", "0") if there else ("none",):
    if there:
        lab.sh("; ".join(f"sysctl -qw {c}={on}" for c in CALLS))
    w, nodes, leases = with_runs()
    what = f"br_netfilter {on}"
    places = [("198.51.100.1", 8080), ("2001:db8:1::1", 8080)]
    R.check(all(a.startswith("reached outside") for n in nodes[:2] for a in n.do("connect_all", places, 20.0)),
            f"{what}: external runs reach the outside")
    R.check(not any(a.startswith("reached") for a in nodes[2].do("connect_all", places, 1.0)), f"{what}: internal ones do not")
    bad = []
    for i, n in enumerate(nodes):
        others = [(x[k], 9000) for j, x in enumerate(leases) if j != i for k in ("general4", "general6", "addr4", "addr6")]
        others += [("198.51.100.2", 8080), ("2001:db8:1::2", 8080)]
        bad += [(n.name, p) for p, a in zip(others, n.do("connect_all", others, 0.8)) if a.startswith("reached")]
    R.check(not bad, f"{what}: runs reach neither each other nor the host (S51)", bad)
    R.check(all(host.do("connect", x[k], 9000).startswith("reached") for x in leases for k in ("general4", "general6")),
            f"{what}: the host reaches runs (B081)")
    done(w, nodes)

# MTU 9000: large packets go through whole, both ways
w, nodes, leases = with_runs()
R.check(all(x["mtu"] == 9000 for x in json.loads(nodes[0].sh("ip -j link")) if x["ifname"] != "lo"),
        "an uplink of 9000 bytes: links inside have as many")
outside.do("udp_echo", "198.51.100.1", 7000)
R.check(nodes[0].do("udp_ask_whole", "198.51.100.1", 7000, 8900) == "reached 8905", "8900 bytes in one packet go and come")
R.check(nodes[0].do("udp_ask_whole", "198.51.100.1", 7000, 9200) == "refused 90", "9200 are too many, and it is told at once")
done(w, nodes)

# a second way out with a smaller MTU: the smaller one counts
second = lab.Node("second")
lab.sh(f"ip link add up1 mtu 1400 type veth peer name out1 mtu 1400 netns {second.p.pid}; ip addr add 192.0.2.2/24 dev up1; "
       "ip link set up1 up")
second.sh("ip link set lo up; ip addr add 192.0.2.1/24 dev out1; ip addr add 203.0.113.77/32 dev lo; ip link set out1 up")
lab.sh("ip route add default via 192.0.2.1 metric 500; ip route add 203.0.113.77 via 192.0.2.1")
second.do("listen", "203.0.113.77", 8080, "second")
w, nodes, leases = with_runs()
R.check(all(x["mtu"] == 1400 for x in json.loads(nodes[0].sh("ip -j link")) if x["ifname"] != "lo"),
        "two ways out, 9000 and 1400 bytes: links inside have 1400")
R.check(nodes[0].do("connect", "203.0.113.77", 8080) == "reached second 192.0.2.2", "the second way out is one")
R.check(nodes[0].do("connect", "198.51.100.1", 8080) == "reached outside 198.51.100.2", "and the first")
done(w, nodes)

# a tunnel that takes everything by two halves of a default route: it is the way out, and takes no pool
lab.sh("ip route del default via 192.0.2.1; ip route del 203.0.113.77; ip route add 0.0.0.0/1 via 192.0.2.1; "
       "ip route add 128.0.0.0/1 via 192.0.2.1")
w, nodes, leases = with_runs()
R.check(nodes[0].do("connect", "203.0.113.77", 8080) == "reached second 192.0.2.2", "two halves of a default route are a way out")
done(w, nodes)
lab.sh("ip route del 0.0.0.0/1; ip route del 128.0.0.0/1; ip route add default via 192.0.2.1 metric 500")

# no way out at all: runs have networks, and fail at once instead of hanging
lab.sh("ip route save > /dev/shm/net-odd-routes; ip route del default via 192.0.2.1; ip route del default; "
       "ip -6 route del default")
w, nodes, leases = with_runs()
R.check(nodes[0].do("connect", "203.0.113.9", 8080) in lab.UNREACHABLE, "no default route: an answer, not a time-out")
R.check(host.do("connect", leases[0]["general4"], 9000).startswith("reached"), "and the host reaches the run")

# the way out comes later, and its MTU changes: the next run has it as it is then
lab.sh("ip route add default via 198.51.100.1; ip -6 route add default via 2001:db8:1::1; ip link del up1")
late = lab.Node("late")
w.attach("late", "external", late)
R.check(late.do("connect", "198.51.100.1", 8080) == "reached outside 198.51.100.2", "a way out that came late: the next run gets out")
R.check(late.do("connect", "2001:db8:1::1", 8080) == "reached outside 2001:db8:1::2", "with IPv6 too")
lab.sh("ip link set up0 mtu 1400")
smaller = lab.Node("smaller")
w.attach("smaller", "external", smaller)
R.check([x["mtu"] for x in json.loads(smaller.sh("ip -j link")) if x["ifname"] != "lo"] == [1400, 1400],
        "the uplink's MTU is another: the next run's links have it")
lab.sh("ip link set up0 mtu 9000")
w.ok("detach", "late")
w.ok("detach", "smaller")
done(w, nodes)

# systemd-resolved: its stub on the host's loopback is seen through; search domains and options are kept
os.makedirs("/run/systemd/resolve")
with open("/run/systemd/resolve/resolv.conf", "w") as f:
    f.write("nameserver 198.51.100.1\nnameserver 2001:db8:1::1\nsearch corp.example lab.example\n")
with open("/run/systemd/resolve/stub-resolv.conf", "w") as f:
    f.write("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example lab.example\n")
os.symlink("/run/systemd/resolve/stub-resolv.conf", RESOLV)
w, nodes, leases = with_runs((f"resolv={RESOLV}",))
text = w.text("resolv", "run0")
servers = [line.split()[1] for line in text.split("\n") if line.startswith("nameserver")]
R.check(servers == ["198.51.100.1", "2001:db8:1::1"], "behind systemd-resolved: the servers it asks", text)
R.check("search corp.example lab.example" in text and "edns0" in text, "with the search domains and options", text)
R.check(all(nodes[0].do("udp_ask", s, 53, "q") == "reached echo q" for s in servers), "and they answer the run (B080)")
hosts = w.text("hosts", "run0")
R.check(f"{leases[0]['general4']}\tabcdef012345" in hosts and "127.0.0.1\tlocalhost" in hosts, "hosts has the run's name", hosts)
R.check("nameserver" not in w.text("resolv", "internal"), "an internal run is told of none")
# the servers change while a run goes on: the next one gets the new ones, and may ask them
with open("/run/systemd/resolve/resolv.conf", "w") as f:
    f.write("nameserver 198.51.100.2\n")
host.do("udp_echo", "198.51.100.2", 53)
late = lab.Node("late")
w.attach("late", "external", late)
R.check("nameserver 198.51.100.2" in w.text("resolv", "late"), "changed servers are seen by the next run")
R.check(late.do("udp_ask", "198.51.100.2", 53, "q") == "reached echo q", "one on the host itself answers on port 53")
R.check(not late.do("connect", "198.51.100.2", 8080, 1.0).startswith("reached"), "and on no other (S51)")
w.ok("detach", "late")
done(w, nodes)
os.unlink(RESOLV)
R.check(lab.links() == ["lo", "up0"] and not lab.tables(), "nothing is left", lab.links())
R.end()
