#!/usr/bin/env python3
# needs: root net
# rows: S51 B080
"""Firewalls that were there first are left alone, and named; what doctor advises makes runs work."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
outside = lab.Node("outside")
lab.uplink(outside)
outside.do("listen", "198.51.100.1", 8080, "outside")
with open("/dev/shm/net-doctor-resolv", "w") as f:
    f.write("nameserver 198.51.100.1\n")
worker = lab.Worker(opts=("resolv=/dev/shm/net-doctor-resolv",))


def doctor(resolv="/dev/shm/net-doctor-resolv"):
    return worker.text("doctor", resolv)


run = lab.Node("run")
worker.attach("run", "external", run)
found = doctor()
R.check("error" not in found and "warn" not in found, "a good host: nothing to say", found)
R.check(run.do("connect", "198.51.100.1", 8080).startswith("reached"), "and a run gets out (B080)")

with open("/dev/shm/net-fw.nft", "w") as f:
    f.write("table inet fw {\nchain gate {\ntype filter hook forward priority 0; policy drop\n}\n}\n")
lab.sh("nft -f /dev/shm/net-fw.nft && rm /dev/shm/net-fw.nft")
R.check(not run.do("connect", "198.51.100.1", 8080, lab.SILENCE).startswith("reached"), "a firewall that drops stays in force")
found = doctor()
R.check("warn: the firewall chain inet fw gate drops" in found, "doctor names it", found)
advice = found.split("e.g.: ")[1].split("\n")[0].replace('"', '\\"')
for line in advice.split("; "):
    lab.sh(line)
R.check(run.do("connect", "198.51.100.1", 8080).startswith("reached"), "what doctor advises lets runs out", advice)
lab.sh("nft delete table inet fw")

with open("/dev/shm/net-doctor-resolv2", "w") as f:
    f.write("nameserver 127.0.0.1\n")
lab.sh("mount -t tmpfs none /run")
R.check("loopback only" in doctor("/dev/shm/net-doctor-resolv2"), "resolvers on loopback only are told of")
lab.sh("ip route del default")
R.check("no IPv4 default route" in doctor(), "so is a missing default route")
worker.ok("detach", "run")
worker.ok("remove")
R.end()
