#!/usr/bin/env python3
# needs: root net
# rows: S51 S57 B080 B081 D72
"""Who reaches what, with real packets: runs of each class against everything around them.

A hostile run is one whose root added routes and writes its own frames: what holds for it does not hang on
what we put into its namespace.
"""
import concurrent.futures
import json
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()

DNS4, DNS6 = "203.0.113.53", "2001:db8:9::53"
META4, META6 = "169.254.169.254", "fd00:ec2::254"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    s = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def udp_frame(dst_mac, src_mac, src, dst, port, token):
    """Ethernet, IP, UDP with a token; checksums right."""
    n = 8 + len(token)
    if ":" in dst:
        a, b = socket.inet_pton(socket.AF_INET6, src), socket.inet_pton(socket.AF_INET6, dst)
        ip = struct.pack("!IHBB", 0x60000000, n, 17, 64) + a + b
        pseudo = a + b + struct.pack("!IxxxB", n, 17)
        kind = 0x86dd
    else:
        a, b = socket.inet_aton(src), socket.inet_aton(dst)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + n, 1, 0, 64, 17, 0) + a + b
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        pseudo = a + b + struct.pack("!BBH", 0, 17, n)
        kind = 0x0800
    udp = struct.pack("!HHHH", 4444, port, n, 0) + token
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp) or 0xffff) + udp[8:]
    return mac(dst_mac) + mac(src_mac) + struct.pack("!H", kind) + ip + udp


def build():
    outside = lab.Node("outside")
    lab.uplink(outside)
    for a in ("203.0.113.9/32", DNS4 + "/32", META4 + "/32", "10.99.0.1/32", "10.99.1.1/32"):
        outside.sh(f"ip addr add {a} dev lo")
    for a in ("2001:db8:9::9/128", DNS6 + "/128", META6 + "/128"):
        outside.sh(f"ip -6 addr add {a} dev lo")
    # another container engine's network, and a service of the host published by DNAT
    other = lab.Node("other engine's container")
    lab.sh(f"ip link add docker0 type bridge; ip addr add 172.20.0.1/24 dev docker0; ip link set docker0 up;"
           f"ip link add dv0 type veth peer name eth0 netns {other.p.pid}; ip link set dv0 master docker0 up")
    other.sh("ip link set lo up; ip addr add 172.20.0.2/24 dev eth0; ip link set eth0 up; "
             "ip route add default via 172.20.0.1")
    with open("/dev/shm/net-dnat.nft", "w") as f:
        f.write("table ip dn {\nchain p {\ntype nat hook prerouting priority -100\n"
                "tcp dport 9090 dnat to 172.20.0.2:8080\n}\n}\n")
    lab.sh("nft -f /dev/shm/net-dnat.nft; rm /dev/shm/net-dnat.nft")
    lab.sh("echo 1 > /proc/sys/net/ipv4/conf/docker0/forwarding; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
    return outside, other


outside, other = build()
host = lab.Node("host", own_namespace=False)
with open("/dev/shm/net-resolv.conf", "w") as f:
    f.write(f"nameserver {DNS4}\nnameserver {DNS6}\nsearch example.org\n")
worker = lab.Worker(opts=("resolv=/dev/shm/net-resolv.conf", "deny=10.99.0.0/16", "allow=10.99.1.1"))
runs, lease = {}, {}
for name, kind in (("int1", "internal"), ("int2", "internal"), ("hostile", "internal"), ("ext1", "external"),
                   ("ext2", "external"), ("hostile-ext", "external")):
    runs[name] = lab.Node(name)
    lease[name] = worker.attach(name, kind, runs[name])

gw = {n: [x["addr_info"][0]["local"] for x in json.loads(lab.sh(f"ip -j -{v} addr show dev {b}"))][0]
      for n, b, v in [(f"{k}{v}", f"codalab_worker_network_{k}", v) for k in ("general", "ext", "int") for v in (4, 6)]}

for node in [host, outside, other] + list(runs.values()):
    node.do("listen", "0.0.0.0", 8080, node.name)
    node.do("listen", "::", 8080, node.name)
    node.do("udp_open", "4", "0.0.0.0", 7070)
    node.do("udp_open", "6", "::", 7070)
for a in (DNS4, DNS6):
    outside.do("udp_echo", a, 53)
host.do("udp_echo", gw["ext4"], 53)
runs["int1"].do("listen", "127.0.0.1", 5005, "loopback")

# hostile: every route it can think of
for name, dev, other_dev in (("hostile", "eth1", "eth0"), ("hostile-ext", "eth1", "eth0")):
    n = runs[name]
    net = "int" if name == "hostile" else "ext"
    for v, via, d in ((4, gw[net + "4"], dev), (6, gw[net + "6"], dev), (4, gw["general4"], other_dev),
                      (6, gw["general6"], other_dev)):
        m = lab.sh(f"ip -j link show dev codalab_worker_network_{net if d == 'eth1' else 'general'}")
        m = json.loads(m)[0]["address"]
        n.sh(f"ip -{v} neigh replace {via} lladdr {m} dev {d} nud permanent")
        n.sh(f"ip -{v} route replace {via} dev {d}")
    if name == "hostile":
        n.sh(f"ip route add default via {gw['int4']} dev eth1; ip -6 route add default via {gw['int6']} dev eth1")

TARGETS = [
    # what, address or by-run function, port, reached from: int1, hostile, ext1, hostile-ext
    ("host service on its general address", gw["general4"], 8080, "nnnn"),
    ("host service on its general address, IPv6", gw["general6"], 8080, "nnnn"),
    ("host service on its external address", gw["ext4"], 8080, "nnnn"),
    ("host service on its external address, IPv6", gw["ext6"], 8080, "nnnn"),
    ("host service on its internal address", gw["int4"], 8080, "nnnn"),
    ("host service on its internal address, IPv6", gw["int6"], 8080, "nnnn"),
    ("host service on its uplink address", "198.51.100.2", 8080, "nnnn"),
    ("host service on its uplink address, IPv6", "2001:db8:1::2", 8080, "nnnn"),
    ("host service on another bridge's address", "172.20.0.1", 8080, "nnnn"),
    ("host port published by DNAT", "198.51.100.2", 9090, "nnnn"),
    ("container of another engine", "172.20.0.2", 8080, "nnnn"),
    ("other internal run, general", lease["int2"]["general4"], 8080, "nnnn"),
    ("other internal run, general, IPv6", lease["int2"]["general6"], 8080, "nnnn"),
    ("other internal run, internal", lease["int2"]["addr4"], 8080, "nnnn"),
    ("other internal run, internal, IPv6", lease["int2"]["addr6"], 8080, "nnnn"),
    ("other external run, general", lease["ext2"]["general4"], 8080, "nnnn"),
    ("other external run, external", lease["ext2"]["addr4"], 8080, "nnnn"),
    ("other external run, external, IPv6", lease["ext2"]["addr6"], 8080, "nnnn"),
    ("metadata address", META4, 8080, "nnnn"),
    ("metadata address, IPv6", META6, 8080, "nnnn"),
    ("network the operator excludes", "10.99.0.1", 8080, "nnnn"),
    ("address the operator allows in it", "10.99.1.1", 8080, "nnyy"),
    ("outside", "203.0.113.9", 8080, "nnyy"),
    ("outside, IPv6", "2001:db8:9::9", 8080, "nnyy"),
    ("the next router", "198.51.100.1", 8080, "nnyy"),
]
COLUMNS = ("int1", "hostile", "ext1", "hostile-ext")
print(f"# {'target':46}" + "".join(f"{c:>14}" for c in COLUMNS))
for what, addr, port, want in TARGETS:
    row, good = "", True
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda c, w: runs[c].do("connect", addr, port, 20.0 if w == "y" else lab.SILENCE), COLUMNS, want))
    for got, expected in zip(answers, want):
        good = good and got.startswith("reached") == (expected == "y")
        row += f"{got.split()[0] + (' ' + got.split()[1] if got.startswith('refused') else ''):>14}"
    print(f"# {what:46}{row}")
    R.check(good, f"{what}: as granted (S51)", row)

for name in ("int1", "hostile"):
    for a in (DNS4, DNS6):
        R.check(not runs[name].do("udp_ask", a, 53, "q", lab.SILENCE).startswith("reached"), f"{name}: resolver {a} is out of reach")
for a in (DNS4, DNS6):
    R.check(runs["ext1"].do("udp_ask", a, 53, "q") == "reached echo q", f"ext1: resolver {a} answers (B080)")
R.check(not runs["ext1"].do("udp_ask", gw["ext4"], 53, "q", lab.SILENCE).startswith("reached"),
        "ext1: a resolver of the host that is not in resolv.conf is out of reach")
R.check(runs["ext1"].do("connect", "203.0.113.9", 8080) == "reached outside 198.51.100.2", "external is masqueraded")
R.check(runs["ext1"].do("connect", "2001:db8:9::9", 8080) == "reached outside 2001:db8:1::2", "IPv6 too")
R.check(runs["int1"].do("connect", "203.0.113.9", 8080) in lab.UNREACHABLE, "internal fails at once, not by time-out")
R.check(runs["hostile-ext"].do("connect", META4, 8080) in lab.UNREACHABLE, "a refusal is an answer, not a time-out")

# the worker reaches runs: from the host, and from inside (netcat)
for name in ("int1", "ext1"):
    for key in ("general4", "general6"):
        R.check(host.do("connect", lease[name][key], 8080).startswith(f"reached {name}"),
                f"host reaches {name} on {lease[name][key]} (B081)")
R.check(worker.ok("connect", runs["int1"].ns, "127.0.0.1", "5005") == ["loopback", "127.0.0.1"],
        "netcat reaches a server on the container's loopback (B081 S57)")
R.check(worker.ok("connect", runs["int1"].ns, "::1", "8080")[0] == "int1", "netcat over IPv6")
R.check(worker.ask("connect", runs["int1"].ns, "127.0.0.1", "1")[1:3] == ["remote", "111"],
        "netcat to a closed port is ECONNREFUSED (B177)")
R.check(worker.ask("connect", runs["int1"].ns, "127.0.0.1", "0")[1] == "user", "port 0 is refused (S57)")

# nobody from outside opens a connection to a run
outside.sh("ip route add 10.192.0.0/10 via 198.51.100.2; ip -6 route add fd00::/8 via 2001:db8:1::2")
other.sh("ip route replace 10.192.0.0/10 via 172.20.0.1")
for name in ("int1", "ext1"):
    for key in ("general4", "addr4", "general6", "addr6"):
        got = outside.do("connect", lease[name][key], 8080, 0.5)
        R.check(not got.startswith("reached"), f"outside does not reach {name} {key}", got)
    R.check(not other.do("connect", lease[name]["addr4"], 8080, 0.5).startswith("reached"),
            f"another engine's container does not reach {name}")
R.check(lab.sh("cat /proc/sys/net/ipv4/ip_forward").strip() == "0", "the host as a whole does not forward")
outside.sh("ip route add 172.20.0.0/24 via 198.51.100.2")
R.check(not outside.do("connect", "172.20.0.2", 8080, 0.5).startswith("reached"),
        "an uplink opened for runs forwards for nobody else")

# spoofing: frames written by hand, and what they carry must arrive nowhere
tokens = 0
for name, dev, net in (("hostile", "eth0", "general"), ("hostile", "eth1", "int"), ("hostile-ext", "eth1", "ext")):
    me, n = lease[name], runs[name]
    key = "general" if dev == "eth0" else "addr"
    bridge = json.loads(lab.sh(f"ip -j link show dev codalab_worker_network_{net}"))[0]["address"]
    mine = json.loads(n.sh(f"ip -j link show dev {dev}"))[0]["address"]
    victim = "ext2" if net == "ext" else "int2"
    theirs = json.loads(runs[victim].sh(f"ip -j link show dev {dev}"))[0]["address"]
    watchers = [(host, "host"), (outside, "outside"), (runs[victim], victim), (other, "other")]
    runs[victim].do("sniff", "wire", dev)
    tries = []
    for v in ("4", "6"):
        own, other_run = me[key + v], lease[victim][key + v]
        far = "203.0.113.9" if v == "4" else "2001:db8:9::9"
        up = "198.51.100.2" if v == "4" else "2001:db8:1::2"
        tries += [(f"IPv{v}: other run's address to its gateway", bridge, mine, other_run, gw[net + v]),
                  (f"IPv{v}: other run's address to the outside", bridge, mine, other_run, far),
                  (f"IPv{v}: other run's MAC and address", bridge, theirs, other_run, far),
                  (f"IPv{v}: other run's MAC, own address", bridge, theirs, own, far),
                  (f"IPv{v}: gateway's address", bridge, mine, gw[net + v], far),
                  (f"IPv{v}: an outside address", bridge, mine, far, up),
                  (f"IPv{v}: straight to the other run's MAC", theirs, mine, own, other_run),
                  (f"IPv{v}: to the other run by the gateway", bridge, mine, own, other_run),
                  (f"IPv{v}: to the host by broadcast", "ff:ff:ff:ff:ff:ff", mine, own, up)]
    tries += [("IPv4: to the host's loopback", bridge, mine, me[key + "4"], "127.0.0.1"),
              ("IPv4: from loopback", bridge, mine, "127.0.0.1", gw[net + "4"]),
              ("IPv4: limited broadcast", "ff:ff:ff:ff:ff:ff", mine, me[key + "4"], "255.255.255.255")]
    for what, dst_mac, src_mac, src, dst in tries:
        tokens += 1
        token = b"token-%08d" % tokens
        n.do("frame", dev, udp_frame(dst_mac, src_mac, src, dst, 7070, token).hex())
        v = "6" if ":" in dst else "4"
        got = [w for node, w in watchers if node.do("udp_got", v, token.hex(), 0.02)]
        if runs[victim].do("udp_got", "wire", token.hex(), 0.02):
            got.append(victim + "'s wire")
        R.check(not got, f"{name} {dev}: {what} goes nowhere (S51)", f"seen by {got}")
    # a VLAN tag around a frame that would pass
    tokens += 1
    token = b"token-%08d" % tokens
    f = udp_frame(bridge, mine, lease["ext1"]["addr4"] if net == "ext" else me[key + "4"], "203.0.113.9", 7070, token)
    n.do("frame", dev, (f[:12] + bytes.fromhex("81000001") + f[12:]).hex())
    R.check(not outside.do("udp_got", "4", token.hex(), 0.05), f"{name} {dev}: a VLAN tag goes nowhere")

# the watchers do see what may pass: else the above proves nothing
bridge = json.loads(lab.sh("ip -j link show dev codalab_worker_network_ext"))[0]["address"]
mine = json.loads(runs["hostile-ext"].sh("ip -j link show dev eth1"))[0]["address"]
for v, far in (("4", "203.0.113.9"), ("6", "2001:db8:9::9")):
    runs["hostile-ext"].do("frame", "eth1", udp_frame(bridge, mine, lease["hostile-ext"]["addr" + v], far, 7070,
                                                      b"honest" + v.encode()).hex())
    R.check(outside.do("udp_got", v, (b"honest" + v.encode()).hex(), 20.0), f"an honest frame by hand arrives, IPv{v}")

# ARP, neighbour discovery, router advertisements: nothing is learnt by anybody


def learnt():
    host_knows = lab.neighbours(lab.sh), lab.forwarding(lab.sh)
    return host_knows, [(lab.neighbours(runs[n].sh), runs[n].sh("ip -6 route")) for n in ("int2", "ext2")]


before = learnt()
for name, dev, net, victim in (("hostile", "eth0", "general", "int2"), ("hostile-ext", "eth1", "ext", "ext2")):
    n = runs[name]
    key = "general" if dev == "eth0" else "addr"
    mine = mac(json.loads(n.sh(f"ip -j link show dev {dev}"))[0]["address"])
    for claimed in (gw[net + "4"], lease[victim][key + "4"]):
        for op in (1, 2):
            arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, op) + mine + socket.inet_aton(claimed) + mine + \
                socket.inet_aton(claimed)
            n.do("frame", dev, (b"\xff" * 6 + mine + b"\x08\x06" + arp).hex())
    for kind, src in ((136, lease[victim][key + "6"]), (136, lease[name][key + "6"]), (134, "fe80::1"),
                      (137, gw[net + "6"]), (134, lease[name][key + "6"])):
        a, b = socket.inet_pton(socket.AF_INET6, src), socket.inet_pton(socket.AF_INET6, "ff02::1")
        body = struct.pack("!BBH", kind, 0, 0) + (struct.pack("!BBHII", 64, 0, 1800, 0, 0) if kind == 134 else
               struct.pack("!I", 0xa0000000) + socket.inet_pton(socket.AF_INET6, lease[victim][key + "6"]) + b"\x02\x01" + mine)
        body = body[:2] + struct.pack("!H", checksum(a + b + struct.pack("!IxxxB", len(body), 58) + body)) + body[4:]
        n.do("frame", dev, (mac("33:33:00:00:00:01") + mine + b"\x86\xdd" +
                            struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + a + b + body).hex())
after = learnt()
R.check(before[0] == after[0], "ARP and ND tricks change nothing on the host", (before[0], after[0]))
R.check(before[1] == after[1], "nor in other runs", (before[1], after[1]))

R.check("nameserver " + DNS4 in worker.text("resolv", "ext1"), "resolv.conf of an external run has the host's servers")
R.check("nameserver" not in worker.text("resolv", "int1"), "that of an internal run has none")
R.end()
