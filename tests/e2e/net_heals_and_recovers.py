#!/usr/bin/env python3
# needs: root net
# rows: S51 B082 D71
"""Rules flushed, bridges deleted, links down, a worker killed: the next attach or start puts it right."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import net_lab as lab

lab.run_in_lab()
R = lab.Report()
outside = lab.Node("outside")
lab.uplink(outside)
outside.do("listen", "198.51.100.1", 8080, "outside")
host = lab.Node("host", own_namespace=False)
host.do("listen", "0.0.0.0", 8081, "host")

worker = lab.Worker()
run = lab.Node("run")
lease = worker.attach("run", "external", run)
run.do("listen", "0.0.0.0", 9000, "run")
gone = []


def works():
    """What a live run needs, and what it must not have."""
    bad = []
    if not run.do("connect", "198.51.100.1", 8080).startswith("reached"):
        bad.append("no way out")
    if not host.do("connect", lease["general4"], 9000).startswith("reached"):
        bad.append("netcat does not reach it")
    if run.do("connect", "198.51.100.2", 8081, lab.SILENCE).startswith("reached"):
        bad.append("reaches the host")
    port = lab.sh(f"bridge -d link show dev {lease['if']}")
    if "isolated on" not in port or "learning off" not in port:
        bad.append("port rules are off")
    return bad


def new_run():
    n = lab.Node("new")
    name = f"new{len(gone)}"
    gone.append(name)
    worker.attach(name, "external", n)
    bad = [] if n.do("connect", "198.51.100.1", 8080).startswith("reached") else ["the new run has no way out"]
    worker.ok("detach", name)
    n.end()
    return bad


R.check(works() == [], "a run works", works())
tag = lease["if"].split("x0")[0]
for what, how in (
        ("someone flushes all rules", "nft flush ruleset"),
        ("someone deletes one table", f"nft delete table inet {tag}"),
        ("someone flushes the rules of the bridge table", f"nft flush table bridge {tag}"),
        ("someone flushes a set", f"nft flush set bridge {tag} port4"),
        ("someone deletes the external bridge", f"ip link del {tag}ext"),
        ("someone deletes the general bridge", f"ip link del {tag}gen"),
        ("someone deletes all bridges and rules", f"ip link del {tag}ext; ip link del {tag}gen; ip link del {tag}int;"
                                                  "nft flush ruleset"),
        ("someone sets the external bridge down", f"ip link set {tag}ext down"),
        ("someone switches forwarding off", "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.ip_forward=0"),
        ("another program changes its own rules", "nft add table ip mine")):
    lab.sh(how)
    bad = new_run()
    bad += works()
    R.check(bad == [], f"{what}: healed at the next attach (S51)", bad)
R.check("table ip mine" in lab.tables(), "tables of others are not touched (D71)")
lab.sh("nft delete table ip mine")

# a port taken out of its bridge is put back by reconcile
lab.sh(f"ip link set {lease['if']} nomaster")
worker.ok("reconcile", "run")
R.check(works() == [], "a link taken out of its bridge is put back", works())

# killed between attaching and anything else
others = [lab.Node(f"other{i}") for i in range(4)]
for i, n in enumerate(others):
    worker.attach(f"other{i}", "internal" if i % 2 else "external", n)
worker.kill()
others[0].end()
worker = lab.Worker(state=worker.state)
R.check(works() == [], "a run goes on over the worker's death", works())
R.check(worker.ok("lease", "run")[:4] == [lease[k] for k in ("general4", "general6", "addr4", "addr6")],
        "its lease is found again with the same addresses")
worker.ok("reconcile", "run", "other1")
want = sorted([tag + x for x in ("gen", "ext", "int")] + [lease["if"], lease["if_general"]] +
              [tag + "g" + worker.ok("lease", "other1")[4].split("g")[-1], tag + "x" +
               worker.ok("lease", "other1")[5].split("x")[-1]] + ["lo", "up0"])
R.check(lab.links() == want, "exactly the links of live runs are left", (lab.links(), want))


def written():
    """Set elements and neighbours."""
    return lab.sh("nft list ruleset").count('" . 02:'), lab.sh("ip neigh").count("PERMANENT")


R.check(written() == (8, 8), "and their set elements and neighbours", written())
R.check(worker.ask("lease", "other0")[1] == "absent", "the dead run's lease is gone")
R.check(works() == [], "the live run did not notice", works())

R.check(worker.ask("remove")[1] == "limit", "networks with runs on them are not removed")
worker.leave()
worker = lab.Worker(state=worker.state)
worker.ok("reconcile")
worker.ok("remove")
R.check(lab.links() == ["lo", "up0"] and lab.tables() == [], "a clean stop leaves nothing", (lab.links(), lab.tables()))
R.end()
