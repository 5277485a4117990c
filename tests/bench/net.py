#!/usr/bin/env python3
"""The cost of a run's networks in the launch path, side by side with what other engines do there.

    tests/bench/net.py [--runs N] [--many N] [--peers DIR]

Each joins an empty network namespace to a bridge with a way out, IPv4 and IPv6, masqueraded: cworker as its daemon does
(two links: general and external), netavark and the chain of CNI plugins (host-local, bridge, firewall, portmap) as podman
starts them, and docker's bridge driver as its daemon does for `docker network connect`, where dockerd can run (cgroup v2,
all alone). Then the 1000th run of cworker against the first. In network and mount namespaces of its own; nothing is
asserted.
"""
import argparse
import http.client
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, 'tests/e2e')]
import net_lab as lab  # noqa: E402
import timing  # noqa: E402

CNI = '/usr/lib/cni'


def clock():
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), use.ru_utime + use.ru_stime


def spent(sample, begin):
    now = clock()
    sample.wall.append(now[0] - begin[0])
    sample.cpu.append(now[1] - begin[1])


def program(argv, text, env=None):
    r = subprocess.run(argv, input=text, capture_output=True, text=True, env=env)
    if r.returncode:
        raise SystemExit(f'bench: {argv[0]} failed ({r.returncode}): {r.stdout}{r.stderr}')
    return r.stdout


def namespace(name):
    lab.sh(f'ip netns add {name}')
    return f'/run/netns/{name}'


def cworker(runs, sample):
    w = lab.Worker()
    for name in ('first', 'second'):  # a warm worker
        w.attach(name, 'external', namespace(name))
    for word in w.ok('many', '0', str(runs), 'external'):
        wall, cpu = word.split(':')
        sample.wall.append(int(wall) / 1e9)
        sample.cpu.append(int(cpu) / 1e9)
    w.ok('few', '0', str(runs))
    for name in ('first', 'second'):
        w.ok('detach', name)
    w.ok('remove')
    w.leave()


def netavark(peers, runs, sample):
    path = os.path.join(peers, 'usr/lib/podman/netavark')
    network = {'driver': 'bridge', 'id': 'a' * 64, 'internal': False, 'ipv6_enabled': True, 'name': 'bench',
               'dns_enabled': False, 'network_interface': 'navk0', 'ipam_options': {'driver': 'host-local'},
               'subnets': [{'gateway': '10.90.0.1', 'subnet': '10.90.0.0/16'}, {'gateway': 'fd90::1', 'subnet': 'fd90::/64'}]}
    for n in range(runs + 1):
        ns = namespace(f'navk{n}')
        text = json.dumps({'container_id': '%064x' % n, 'container_name': f'c{n}', 'network_info': {'bench': network},
                           'networks': {'bench': {'interface_name': 'eth0',
                                                  'static_ips': [f'10.90.0.{n + 2}', f'fd90::{n + 2:x}']}}})
        begin = clock()
        program([path, 'setup', ns], text)
        if n:
            spent(sample, begin)


def cni(runs, sample):
    env = {'CNI_COMMAND': 'ADD', 'CNI_IFNAME': 'eth0', 'CNI_PATH': CNI, 'PATH': os.environ['PATH']}
    ipam = {'type': 'host-local', 'dataDir': '/run/cni', 'routes': [{'dst': '0.0.0.0/0'}, {'dst': '::/0'}],
            'ranges': [[{'subnet': '10.91.0.0/16'}], [{'subnet': 'fd91::/64'}]]}
    chain = ({'type': 'bridge', 'bridge': 'cni0', 'isGateway': True, 'ipMasq': True, 'ipam': ipam},
             {'type': 'portmap', 'capabilities': {'portMappings': True}}, {'type': 'firewall', 'backend': 'iptables'})
    for n in range(runs + 1):
        env.update(CNI_CONTAINERID=f'c{n}', CNI_NETNS=namespace(f'cni{n}'))
        result, begin = None, clock()
        for plugin in chain:
            text = dict(plugin, cniVersion='0.4.0', name='bench', **({'prevResult': result} if result else {}))
            result = json.loads(program([os.path.join(CNI, plugin['type'])], json.dumps(text), env))
        if n:
            spent(sample, begin)


class Docker:
    """A private dockerd: its own root, sockets and bridges, in the namespaces we are in."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix='bench-docker-', dir=os.environ.get('TMPDIR', '/tmp'))
        self.sock = os.path.join(self.dir, 's')
        self.log = open(os.path.join(self.dir, 'log'), 'w+')
        self.p = subprocess.Popen(['dockerd', '-H', 'unix://' + self.sock, '--data-root', self.dir + '/root', '--exec-root',
                                   self.dir + '/exec', '--pidfile', self.dir + '/pid', '--ipv6', '--fixed-cidr-v6',
                                   'fd92::/64', '--ip6tables', '--experimental'], stdout=self.log, stderr=self.log)
        end = time.monotonic() + 120
        while self.p.poll() is None and time.monotonic() < end:
            try:
                return self.ask('GET', '/_ping') and None
            except OSError:
                time.sleep(0.2)
        self.log.seek(0)
        raise SystemExit('bench: dockerd does not start: ' + self.log.read()[-2000:])

    def ask(self, method, path, body=None, raw=None):
        c = http.client.HTTPConnection('docker', timeout=60)
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.connect(self.sock)
        c.request(method, path, raw if raw is not None else json.dumps(body) if body is not None else None,
                  {'Content-Type': 'application/x-tar' if raw is not None else 'application/json'})
        r = c.getresponse()
        text = r.read().decode()
        if r.status >= 400:
            raise SystemExit(f'bench: docker {path}: {r.status} {text}')
        return text

    def end(self):
        self.p.terminate()
        self.p.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def docker(runs, sample):
    import io
    import tarfile
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode='w') as t:
        t.add(shutil.which('busybox'), 'bin/busybox')
    d = Docker()
    try:
        d.ask('POST', '/images/create?fromSrc=-&repo=bench', raw=tar.getvalue())
        ids = {}
        for name in ('home', 'bench'):
            ids[name] = json.loads(d.ask('POST', '/networks/create', {
                'Name': name, 'Driver': 'bridge', 'EnableIPv6': True,
                'IPAM': {'Config': [{'Subnet': f'10.9{3 + len(ids)}.0.0/16'}, {'Subnet': f'fd9{3 + len(ids)}::/64'}]}}))['Id']
        c = json.loads(d.ask('POST', '/containers/create', {'Image': 'bench', 'Cmd': ['/bin/busybox', 'sleep', '100000'],
                                                           'HostConfig': {'NetworkMode': 'home',
                                                                          'SecurityOpt': ['apparmor=unconfined']}}))['Id']
        d.ask('POST', f'/containers/{c}/start')
        for n in range(runs + 1):
            begin = time.monotonic()
            d.ask('POST', f'/networks/{ids["bench"]}/connect', {'Container': c})
            if n:
                sample.wall.append(time.monotonic() - begin)
                sample.cpu.append(float('nan'))
            d.ask('POST', f'/networks/{ids["bench"]}/disconnect', {'Container': c})
        d.ask('POST', f'/containers/{c}/kill')
    finally:
        d.end()


def growth(many):
    """Runs that stay: what the next one costs, in turn with the first run of a worker on an empty host of its own, since a shared
    machine's clock changes by half from one second to the next."""
    other = lab.Node('other')
    lab.uplink(lab.Node('other outside'), host=other)
    full, empty = lab.Worker(), lab.Worker(host=other)
    for name, w in (('full', full), ('empty', empty)):
        w.attach('warm', 'external', namespace(name))
    print('\n### networks: the cost of a run of cworker while others are there\n\n| runs there before | attach wall ms (median of 26) '
          '| CPU ms | CPU ms of a first run, in turn | x first |\n|---|---|---|---|---|')
    at = 0
    for goal in [0] + [g for g in (100, 250, 500, 750, 970) if g < many]:
        if goal > at:
            full.ok('many', str(at), str(goal - at), 'external')
            at = goal
        got, first = [], []
        for i in range(at, at + 26):
            for w, n, sample in ((full, i, got), (empty, 0, first))[::1 if i % 2 else -1]:  # the second finds the kernel's code warm
                sample.append([int(x) / 1e6 for x in w.ok('many', str(n), '1', 'external')[0].split(':')])
            empty.ok('few', '0', '1')
        wall, cpu, cpu1 = (statistics.median(x[k] for x in sample) for sample, k in ((got, 0), (got, 1), (first, 1)))
        print(f'| {at} | {wall:.2f} | {cpu:.2f} | {cpu1:.2f} | {cpu / cpu1:.2f} |', flush=True)
        at += 26
    begin = time.monotonic()
    full.ok('few', '0', str(at))
    print(f'\nDetached again, one by one: {(time.monotonic() - begin) * 1000 / at:.1f} ms each.')
    for w in (full, empty):
        w.ok('detach', 'warm')
        w.ok('remove')
        w.leave()


def main():
    parser = argparse.ArgumentParser(description='what a run\'s networks cost')
    parser.add_argument('--runs', type=int, default=15)
    parser.add_argument('--many', type=int, default=1000)
    parser.add_argument('--peers', default=os.path.join(TOP, 'build/bench-peers'))
    args = parser.parse_args()
    lab.run_in_lab()
    lab.sh('mount -t tmpfs none /run')
    outside = lab.Node('outside')
    lab.uplink(outside)
    lab.sh('sysctl -qw net.ipv4.ip_forward=1')  # as the others want it
    samples = {}
    for name, run, there in (
            ('cworker (2 links)', cworker, True),
            ('netavark', lambda n, s: netavark(args.peers, n, s), os.path.isdir(args.peers)),
            ('CNI plugins', cni, os.path.isdir(CNI)),
            ('docker bridge', docker, os.environ.get('VM_RUN') == '1' and shutil.which('dockerd'))):
        if not there:
            print(f'(not here: {name})')
            continue
        sample = timing.Sample()
        try:
            run(args.runs, sample)
            samples[name] = sample
        except SystemExit as e:  # the others are worth the time they took
            print(e)
    timing.table('networks: joining an empty namespace', samples, 'cworker (2 links)')
    lab.sh('sysctl -qw net.ipv4.ip_forward=0')
    if args.many:
        growth(args.many)


if __name__ == '__main__':
    main()
