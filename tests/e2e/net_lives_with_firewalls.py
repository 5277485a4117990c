#!/usr/bin/env python3
# needs: root net
# rows: S51 B080 D71
"""Firewalls that were there first: default-drop nftables, docker's rules by both kinds of iptables, ufw, firewalld.

Each is left as it was, stays in force, opens nothing between runs and what they must not reach; doctor says when it
blocks, and is right: what it advises makes runs work, and then it is silent.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
RESOLV = "/dev/shm/net-firewalls-resolv.conf"
outside = lab.Node("outside")
lab.uplink(outside)
host = lab.Node("host", own_namespace=False)
for node in (outside, host):
    node.do("listen", "0.0.0.0", 8080, node.name)
    node.do("listen", "::", 8080, node.name)
with open(RESOLV, "w") as f:
    f.write("nameserver 198.51.100.1\n")
lab.sh("mount -t tmpfs none /run")  # the lock of iptables-legacy

# As dockerd leaves them (20.10, one published port), firewalld (1.3, public zone), and ufw (0.36) in their gist.
DOCKER = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 9090 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
UFW = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-forward - [0:0]
:ufw-before-input - [0:0]
:ufw-after-forward - [0:0]
:ufw-reject-forward - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-after-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
COMMIT
"""
FIREWALLD = """table inet firewalld {
 chain filter_PREROUTING {
  type filter hook prerouting priority filter + 10; policy accept
  icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
  meta nfproto ipv6 fib saddr . mark . iif oif missing drop
 }
 chain filter_INPUT {
  type filter hook input priority filter + 10; policy accept
  ct state { established, related } accept
  ct status dnat accept
  iifname "lo" accept
  ct state invalid drop
  jump filter_INPUT_ZONES
  reject with icmpx type admin-prohibited
 }
 chain filter_FORWARD {
  type filter hook forward priority filter + 10; policy accept
  ct state { established, related } accept
  ct status dnat accept
  iifname "lo" accept
  ct state invalid drop
  ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002:a00::/24 } reject with icmpv6 type addr-unreachable
  jump filter_FORWARD_ZONES
  reject with icmpx type admin-prohibited
 }
 chain filter_INPUT_ZONES {
  goto filter_IN_public
 }
 chain filter_FORWARD_ZONES {
  goto filter_FWD_public
 }
 chain filter_IN_public {
  tcp dport 22 ct state { new, untracked } accept
 }
 chain filter_FWD_public {
  meta l4proto { icmp, ipv6-icmp } accept
 }
}
"""
DROP = """table inet fw {
 chain in {
  type filter hook input priority 0; policy drop
  iifname "lo" accept
  meta l4proto ipv6-icmp accept
  ct state established,related accept
 }
 chain passing {
  type filter hook forward priority 0; policy drop
  ct state established,related accept
 }
}
"""


def load(command, text):
    with open("/dev/shm/net-firewall-rules", "w") as f:
        f.write(text)
    lab.sh(f"{command} < /dev/shm/net-firewall-rules && rm /dev/shm/net-firewall-rules")


def saved():
    """Rules of others."""
    nft = lab.sh("nft -s list ruleset")
    theirs = [t.strip() for t in ("\n" + nft).split("\ntable ") if " cwk" not in t.split("{")[0]]
    return theirs, lab.sh("for c in iptables-legacy ip6tables-legacy; do $c -S; $c -t nat -S; done 2>/dev/null", check=False)


def clear():
    lab.sh("for t in filter nat; do for c in iptables-legacy ip6tables-legacy; do grep -q $t /proc/net/"
           "$(echo ${c%-legacy} | sed s/tables/_tables/)_names || continue; $c -t $t -F; $c -t $t -X; "
           "for h in PREROUTING INPUT FORWARD OUTPUT POSTROUTING; do $c -t $t -P $h ACCEPT 2>/dev/null; done; done; done;"
           "true")
    lab.sh("nft flush ruleset")


def both(text):
    """The same for IPv6, as far as it goes."""
    return text.replace("172.17.0.0/16", "fd11::/64").replace("172.17.0.2/32", "fd11::2/128").replace(
        "172.17.0.2:80", "[fd11::2]:80").replace("127.0.0.0/8", "::1/128").replace(
        "-p icmp -m icmp --icmp-type 8", "-p ipv6-icmp -m icmp6 --icmpv6-type 128")


def doctor():
    return worker.text("doctor", RESOLV)


def out(run, seconds=2.5):
    answers = run.do("connect_all", [("198.51.100.1", 8080), ("2001:db8:1::1", 8080)], seconds)
    return [a.startswith("reached") for a in answers]


FIREWALLS = (
    ("a default-drop policy", lambda: load("nft -f -", DROP), "inet fw passing"),
    ("docker by iptables-nft", lambda: (load("iptables-nft-restore", DOCKER), load("ip6tables-nft-restore", both(DOCKER))),
     "ip filter FORWARD"),
    ("docker by iptables-legacy", lambda: (load("iptables-legacy-restore", DOCKER),
                                           load("ip6tables-legacy-restore", both(DOCKER))), "iptables-legacy"),
    ("ufw by iptables-nft", lambda: (load("iptables-nft-restore", UFW), load("ip6tables-nft-restore", both(UFW))),
     "ip filter FORWARD"),
    ("ufw by iptables-legacy", lambda: (load("iptables-legacy-restore", UFW), load("ip6tables-legacy-restore", both(UFW))),
     "iptables-legacy"),
    ("firewalld", lambda: load("nft -f -", FIREWALLD), "inet firewalld filter_FORWARD"))
for what, put, named in FIREWALLS:
    put()
    before = saved()
    worker = lab.Worker(opts=(f"resolv={RESOLV}",))
    run, other, internal = lab.Node("run"), lab.Node("other"), lab.Node("internal")
    lease = worker.attach("run", "external", run)
    leases = [lease, worker.attach("other", "external", other), worker.attach("internal", "internal", internal)]
    for n in (run, other, internal):
        n.do("listen", "0.0.0.0", 9000, n.name)
    found = doctor()
    R.check(out(run) == [False, False], f"{what}: stays in force")
    R.check(named in found and "warn: " in found, f"{what}: doctor names it", found)
    advice = [x.split("e.g.: ")[1] for x in found.split("\n") if "e.g.: " in x]
    if what == "firewalld":  # firewall-cmd's own daemon is not here: the rules it makes for that
        R.check("--zone=trusted --add-interface='cwk+'" in advice[0], f"{what}: advice is in its own words", advice)
        advice = ['nft insert rule inet firewalld filter_FORWARD_ZONES iifname "cwk*" accept']
    for a in advice:
        for line in a.split("; "):
            lab.sh(line.replace('"', '\\"') if line.startswith("nft") else line)
    with_advice = saved()
    R.check(out(run, 20.0) == [True, True], f"{what}: what doctor advises lets external runs out", advice)
    R.check("warn: " not in doctor(), f"{what}: and doctor is content", doctor())
    bad = []
    for n, mine in ((run, leases[0]), (internal, leases[2])):
        places = [("198.51.100.2", 8080), ("198.51.100.2", 9090), ("2001:db8:1::2", 8080)] + \
            [(x[k], 9000) for x in leases for k in ("general4", "addr4") if x is not mine]
        bad += [(n.name, p) for p, a in zip(places, n.do("connect_all", places, 1.0)) if a.startswith("reached")]
    R.check(not bad, f"{what}: opens nothing between runs and host, or runs and runs (S51)", bad)
    R.check(not any(out(internal)), f"{what}: nor anything to an internal run (S51)")
    R.check(host.do("connect", lease["general4"], 9000).startswith("reached run"), f"{what}: the host reaches the run")
    R.check(saved() == with_advice, f"{what}: its rules are as they were (D71)")
    for r in ("run", "other", "internal"):
        worker.ok("detach", r)
    worker.ok("remove")
    worker.leave()
    R.check(saved() == with_advice and before != with_advice, f"{what}: and behind a clean stop (D71)")
    for n in (run, other, internal):
        n.end()
    clear()
    R.check(not lab.tables(), f"{what}: nothing of it is in the next one's way", lab.tables())

# rules that let everything through open nothing either
load("iptables-nft-restore", DOCKER.replace("FORWARD DROP", "FORWARD ACCEPT"))
worker = lab.Worker(opts=(f"resolv={RESOLV}",))
run = lab.Node("run")
worker.attach("run", "external", run)
R.check("warn" not in doctor(), "a policy that accepts is no finding", doctor())
R.check(out(run, 20.0)[0], "and runs get out")
worker.ok("detach", "run")
worker.ok("remove")
os.unlink(RESOLV)
R.end()
