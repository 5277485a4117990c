"""A host, an outside and runs, each a network namespace, for tests/e2e/net_*.

Nothing of the machine's own network is touched: run_in_lab() starts the test again in network and mount namespaces
of its own, which are "the host" from then on. A Node is a process in a namespace that does as it is told: listen,
connect, send a raw frame. The worker's side is tests/unit/netns_tool.c.
"""
import atexit
import errno
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, os.environ.get("CW_BUILD") or os.environ.get("BUILD", "build"), "tests/unit/netns_tool")

AGENT = r'''
import json, os, select, socket, sys
held, tcp, udp = [], {}, {}

def family(addr):
    return socket.AF_INET6 if ":" in addr else socket.AF_INET

def listen(addr, port, text="hello"):
    s = socket.socket(family(addr)); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in addr: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((addr, port)); s.listen(64)
    if os.fork() == 0:
        sys.stdin.close()
        import threading
        def talk(c, peer):
            try:
                c.sendall((text + " " + peer[0]).encode())
                c.close()
            except OSError: pass
        while True:
            c, peer = s.accept()
            threading.Thread(target=talk, args=(c, peer), daemon=True).start()
    s.close()

def connect(addr, port, timeout=20.0):
    # short time-outs are for what must not be reached
    s = socket.socket(family(addr)); s.settimeout(timeout)
    try:
        s.connect((addr, port))
        got = s.recv(200).decode()
        return "reached " + got
    except socket.timeout: return "silence"
    except OSError as e: return "refused " + str(e.errno)
    finally: s.close()

def connect_all(places, timeout):
    # (address, port), or with a time-out of its own
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        return list(pool.map(lambda p: connect(p[0], p[1], *(p[2:] or [timeout])), places))

def udp_open(name, addr, port):
    s = socket.socket(family(addr), socket.SOCK_DGRAM)
    if ":" in addr: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((addr, port)); udp[name] = s

def sniff(name, link):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((link, 0)); udp[name] = s

def udp_got(name, token, wait=0.3):
    while select.select([udp[name]], [], [], wait)[0]:
        if bytes.fromhex(token) in udp[name].recv(65535): return True
    return False

def udp_ask(addr, port, text, timeout=20.0):
    s = socket.socket(family(addr), socket.SOCK_DGRAM); s.settimeout(timeout)
    try:
        s.sendto(text.encode(), (addr, port))
        return "reached " + s.recv(500).decode()
    except socket.timeout: return "silence"
    except OSError as e: return "refused " + str(e.errno)

def udp_ask_whole(addr, port, n, timeout=20.0):
    s = socket.socket(family(addr), socket.SOCK_DGRAM); s.settimeout(timeout)
    s.setsockopt(socket.IPPROTO_IP, 10, 2)   # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    try:
        s.sendto(bytes(n), (addr, port))
        return "reached %d" % len(s.recv(65535))
    except socket.timeout: return "silence"
    except OSError as e: return "refused " + str(e.errno)

def udp_echo(addr, port):
    s = socket.socket(family(addr), socket.SOCK_DGRAM)
    s.bind((addr, port))
    if os.fork() == 0:
        sys.stdin.close()
        while True:
            d, a = s.recvfrom(65535); s.sendto(b"echo " + d, a)

def bulk(addr, port):
    s = socket.socket(family(addr)); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((addr, port)); s.listen(64)
    if os.fork() == 0:
        sys.stdin.close()
        import threading
        def talk(c):
            n = int(c.recv(20)); c.sendall(b"k")
            if n > 0: c.sendall(bytes(n))
            else:
                while n < 0: n += len(c.recv(65536)) or 1 << 60
                c.sendall(b"k")
            c.close()
        while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
    s.close()

def stream(addr, port, n, piece, pause):
    s = socket.socket(family(addr)); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in addr: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((addr, port)); s.listen(512)
    if os.fork() == 0:
        sys.stdin.close()
        import threading, time
        def talk(c):
            left = n
            try:
                while left > 0:
                    c.sendall(bytes(min(piece, left))); left -= piece
                    if pause: time.sleep(pause)
            except OSError: pass
            c.close()
        while True: threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
    s.close()

def deaf(addr, port):
    # takes no connection: its queue is full after the first
    s = socket.socket(family(addr)); s.bind((addr, port)); s.listen(0); held.append(s)
    for _ in range(8):
        c = socket.socket(family(addr)); c.setblocking(False); c.connect_ex((addr, port)); held.append(c)

def transfer(addr, port, n):
    import time
    s = socket.socket(family(addr)); s.settimeout(60); s.connect((addr, port))
    s.sendall(b"%d" % n); s.recv(1); begin = time.monotonic()
    if n > 0:
        while n > 0: n -= len(s.recv(65536)) or 1 << 60
    else: s.sendall(bytes(-n)); s.recv(1)
    s.close()
    return time.monotonic() - begin

def blast(link, data, times):
    import time
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((link, 0))
    s.setsockopt(263, 20, 1)   # SOL_PACKET, PACKET_QDISC_BYPASS
    f = bytes.fromhex(data); begin = time.monotonic(); sent = 0
    for _ in range(times):
        try: s.send(f); sent += len(f)
        except OSError: pass
    s.close()
    return sent, time.monotonic() - begin

def frame(link, data):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((link, 0))
    s.send(bytes.fromhex(data)); s.close()

for line in sys.stdin:
    name, args = json.loads(line)
    try: out = [True, globals()[name](*args)]
    except Exception as e: out = [False, repr(e)]
    print(json.dumps(out), flush=True)
'''


def run_in_lab():
    if os.environ.get("NET_LAB") == "1":
        # files of our own, whoever else runs the same test on this machine
        subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/shm"], check=True)
        return
    if not os.path.exists(TOOL):
        sys.exit(f"{TOOL} is not built: make tests")
    os.environ["NET_LAB"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", "--", sys.executable]
              + [os.path.abspath(sys.argv[0])] + sys.argv[1:])


def sh(line, check=True):
    r = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True)
    if check and r.returncode:
        raise RuntimeError(f"{line}: {r.stderr}")
    return r.stdout


class Node:
    all = []

    def __init__(self, name, own_namespace=True):
        argv = ["unshare", "--net"] if own_namespace else []
        self.name = name
        self.p = subprocess.Popen(argv + [sys.executable, "-c", AGENT], stdin=subprocess.PIPE, text=True,
                                  stdout=subprocess.PIPE, start_new_session=True)
        self.do("len", "")
        self.ns = f"/proc/{self.p.pid}/ns/net"
        Node.all.append(self)

    def do(self, name, *args):
        self.p.stdin.write(json.dumps([name, args]) + "\n") if name != "len" else \
            self.p.stdin.write(json.dumps(["str", []]) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} is gone")
        ok, value = json.loads(line)
        if not ok and name != "len":
            raise RuntimeError(f"{self.name}: {name}{args}: {value}")
        return value

    def sh(self, line, check=True):
        return sh(f"nsenter --net={self.ns} /bin/sh -c '{line}'", check)

    def end(self):
        try:
            os.killpg(self.p.pid, 9)
        except ProcessLookupError:
            pass
        self.p.wait()


class Worker:
    """netns_tool: a process that has the networks open."""

    def __init__(self, state=None, prefix="codalab_worker_network", opts=(), host=None):
        """host: the Node that is its host, else the lab."""
        self.state = state or tempfile.mkdtemp(prefix="net-state-", dir="/dev/shm")
        self.p = subprocess.Popen(["nsenter", f"--net={host.ns}", TOOL] if host else [TOOL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ok("open", self.state, prefix, *opts)

    def ask(self, *words):
        self.p.stdin.write(" ".join(words) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise RuntimeError(f"netns_tool died of {words}")
        return line.split()

    def ok(self, *words):
        got = self.ask(*words)
        if got[0] != "ok":
            raise RuntimeError(f"{words}: {' '.join(got)}")
        return got[1:]

    def attach(self, run_id, kind, node, hostname="abcdef012345"):
        keys = ("general4", "general6", "addr4", "addr6", "if_general", "if", "ns")
        return dict(zip(keys, self.ok("attach", run_id, kind, node.ns if isinstance(node, Node) else node, hostname)))

    def text(self, what, run_id):
        self.p.stdin.write(f"{what} {run_id}\n")
        self.p.stdin.flush()
        out = ""
        while not out.endswith("\n.\n") and out != ".\n":
            out += self.p.stdout.readline()
        return out[:-2]

    def kill(self):
        self.p.kill()
        self.p.wait()

    def leave(self):
        self.p.stdin.close()
        self.p.wait()


def end_all():
    for n in Node.all:
        n.end()


atexit.register(end_all)


SILENCE = 1.6  # how long to wait for an answer that must not come; IPv6 refusals are heard with the second packet, a second later


def neighbours(sh):
    """Who is known to have which address. Not how sure the kernel is of it: that changes by itself."""
    lines = [line.split() for line in sh("ip neigh; ip -6 neigh").split("\n")]
    return {(w[0], w[2], w[4]) for w in lines if "lladdr" in w}


def forwarding(sh):
    """The bridges' entries, without the kernel's own multicast ones."""
    return sorted(line for line in sh("bridge fdb").split("\n") if not line.startswith(("33:33", "01:00:5e")))


def uplink(outside, mtu=1500, ipv6=True, host=None):
    """up0 of the host (the lab, or a Node) <-> out0 of the outside, which is the router."""
    here = host.sh if host else sh
    here(f"ip link set lo up; ip link add up0 mtu {mtu} type veth peer name out0 mtu {mtu} netns {outside.p.pid}")
    no_dad = "sysctl -qw net.ipv6.conf.%s.accept_dad=0; " if ipv6 else ": %s; "
    here((no_dad % "up0") + "ip addr add 198.51.100.2/24 dev up0; ip link set up0 up")
    outside.sh((no_dad % "out0") + "ip link set lo up; ip addr add 198.51.100.1/24 dev out0; ip link set out0 up")
    here("ip route add default via 198.51.100.1")
    # a new namespace takes IPv4 forwarding over from the machine; IPv6 has a switch a link since Linux 6.17 only
    here("sysctl -qw net.ipv4.ip_forward=0")
    if ipv6 and not os.path.exists("/proc/sys/net/ipv6/conf/lo/force_forwarding"):
        here("sysctl -qw net.ipv6.conf.all.forwarding=1")
    # the kernel gives links their state and their first address a little later
    for node in (here, outside.sh):
        for _ in range(200):
            text = node("ip -6 addr show scope link")
            if not ipv6 or ("fe80" in text and "tentative" not in text):
                break
            time.sleep(0.05)
    if ipv6:
        here("ip addr add 2001:db8:1::2/64 dev up0 nodad")
        outside.sh("ip addr add 2001:db8:1::1/64 dev out0 nodad")
        here("ip -6 route add default via 2001:db8:1::1")


class Report:
    def __init__(self):
        self.failed = 0
        self.n = 0

    def check(self, good, what, detail=""):
        self.n += 1
        if not good:
            self.failed += 1
        print(f"{'ok' if good else 'not ok'} {self.n} - {what}" + (f"  # {detail}" if detail and not good else ""),
              flush=True)
        return good

    def end(self):
        print(f"1..{self.n}")
        sys.exit(1 if self.failed else 0)


def links():
    return sorted(x["ifname"] for x in json.loads(sh("ip -j link")))


def tables():
    return sorted(x for x in sh("nft list tables").split("\n") if x)


UNREACHABLE = {f"refused {n}" for n in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED, errno.EACCES)}
