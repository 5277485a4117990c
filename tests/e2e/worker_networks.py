#!/usr/bin/env python3
"""A bundle's networks as its first instruction finds them, what the worker's options grant, what stats count, netcat."""
# needs: root net
# rows: B080 B081 B082 S51
import json
import os
import subprocess
import threading
import socket
import time

import worker_lab
from worker_lab import BIN, check, equal

worker_lab.enter()


def sh(line):
    return subprocess.run(['/bin/sh', '-c', line], check=True, capture_output=True, text=True).stdout


# an uplink of 1400 bytes to an outside with a web service and a metadata service, both on port 8080
outside = subprocess.Popen(['unshare', '--net', 'sleep', '100000'])
while os.readlink('/proc/%d/ns/net' % outside.pid) == os.readlink('/proc/self/ns/net'):
    pass
sh('ip link add up0 mtu 1400 type veth peer name out0 mtu 1400 netns %d; ip addr add 198.51.100.2/24 dev up0; '
   'ip link set up0 up' % outside.pid)
sh('nsenter --net=/proc/%d/ns/net sh -c "ip link set lo up; ip addr add 198.51.100.1/24 dev out0; ip link set out0 up; '
   'ip addr add 203.0.113.9/32 dev lo; ip addr add 169.254.169.254/32 dev lo"; ip route add default via 198.51.100.1; '
   'sysctl -qw net.ipv4.ip_forward=0' % outside.pid)
server = subprocess.Popen(['nsenter', '--net=/proc/%d/ns/net' % outside.pid, 'python3', '-c', '''
import socket
s = socket.create_server(("0.0.0.0", 8080))
while True:
    c, _ = s.accept()
    try:
        c.sendall(b"outside" + bytes(200000))
    except OSError:
        pass  # who has heard enough hangs up
    c.close()
'''])
while True:
    try:
        socket.create_connection(('198.51.100.1', 8080)).close()
        break
    except OSError:  # it is still starting
        time.sleep(0.05)
own = socket.create_server(('0.0.0.0', 0))
PORT = own.getsockname()[1]


def serve():
    while True:
        c, _ = own.accept()
        c.sendall(b'host')
        c.close()


threading.Thread(target=serve, daemon=True).start()
LOOK = '''cat /proc/net/dev | grep -c eth; ip -o link | grep -o 'eth.*mtu [0-9]*' | sed 's/@.*mtu/ mtu/';
ip -o link show lo | grep -c UP; ip route | grep -c default; cat /etc/hostname 2>/dev/null; hostname;
grep -c $(hostname) /etc/hosts; grep -c nameserver /etc/resolv.conf;
for i in 0 1; do ip -o -4 addr show eth$i | wc -l; ip -o -6 addr show eth$i | grep -vc fe80; done;'''


def reach(*places):
    return ''.join('echo %s:$(nc -w 10 %s %s </dev/null 2>/dev/null | head -c 7 | tr -d "\\000");' % (n, a, p)
                   for n, a, p in places)


PLACES = (('far', '203.0.113.9', 8080), ('router', '198.51.100.1', 8080), ('meta', '169.254.169.254', 8080),
          ('host', '198.51.100.2', PORT))
try:
    with worker_lab.Lab() as lab:
        w = lab.worker('--network-allow', 'host:%d' % PORT, '--network-only', '203.0.113.0/24', '--network-egress', '50m',
                       '--network-ingress', '50m', '--ipv4-pool', '10.44.0.0/16')
        ext = lab.run(LOOK + reach(*PLACES) + 'sleep 1000', network=True)
        inn = lab.run('mkdir w; echo inner >w/f; httpd -h w -p 127.0.0.1:7000; httpd -h w -p "[::1]:7001"; ' + LOOK + reach(*PLACES) +
                      'sleep 1000', network=False)
        for uuid in (ext, inn):
            lab.wait(uuid, 'running')

        def output(uuid):
            lab.until(lambda: 'host:' in lab.cat(uuid) and lab.cat(uuid).endswith('\n'), 'the output of ' + uuid)
            return lab.cat(uuid).split('\n')

        name = ext.replace('0x', '')[:12]
        got = output(ext)
        check(got[0] == '2', 'two links before the first instruction', got)
        equal(got[1:3], ['eth0 mtu 1400', 'eth1 mtu 1400'])
        equal(got[3:5], ['1', '1'])
        check('1' in got[5:8] or name in got[5:8], got)
        equal(got[-5:-1], ['far:outside', 'router:', 'meta:', 'host:host'])
        got = output(inn)
        equal(got[1:3], ['eth0 mtu 1400', 'eth1 mtu 1400'])
        equal(got[3:5], ['1', '0'])
        equal(got[-5:-1], ['far:', 'router:', 'meta:', 'host:'])

        stats = json.loads(subprocess.run([os.path.join(BIN, 'cwrun'), 'stats', '--json', '--runtime-dir', lab.runtime_dir],
                                          check=True, capture_output=True, text=True).stdout)
        of = {r['uuid']: r for r in stats}
        check(of[ext]['net_received'] > 7 and of[ext]['net_sent'] > 0, 'bytes are counted', of[ext])
        check(of[ext]['net_received'] > of[inn]['net_received'], of)
        for port in (7000, 7001):
            answer = lab.client.netcat(inn, port, 'GET /f HTTP/1.0\r\n\r\n')
            check(b'inner' in answer, 'netcat to a port on the loopback only', port, answer)
        lab.client.kill(uuid=ext)
        lab.client.kill(uuid=inn)
        for uuid in (ext, inn):
            lab.wait(uuid, 'killed')
        equal(w.stop(), 0)
        equal(sh('ip -br link').count('cwk'), 0)
        equal(sh('nft list tables').count('cwk'), 0)
        sh('ip link del up0')  # what the lab looks for must not be ours
finally:
    for p in (server, outside):
        p.kill()
        p.wait()
