"""The bundle manager: a loop that stages, schedules, delivers, and declares workers dead (§1.4, §1.7)."""
import collections
import concurrent.futures
import os
import random
import re
import threading
import time
import traceback

import bundles as states

UNITS = {'': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40}
SECONDS = {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'y': 31536000}
DELIVERIES = 32
DAY = 86400


def parse_size(text):
    text = str(text).lower()
    if text[-1:].isdigit():
        return int(text)
    return int(float(text[:-1]) * UNITS[text[-1]])


def parse_time(text):
    found = re.match(r'([0-9.]+)([smhdy]?)\Z', str(text))
    return float(found[1]) * SECONDS[found[2] or 's']


class Manager:
    def __init__(self, store, bundles, workers, oauth, config):
        self.store, self.bundles, self.workers = store, bundles, workers
        self.oauth, self.config = oauth, config
        self._stop = threading.Event()
        self._busy = set()
        self._pool = concurrent.futures.ThreadPoolExecutor(DELIVERIES)
        self._thread = threading.Thread(target=self._loop, name='bundle manager', daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _loop(self):
        while not self._stop.wait(self.config.manager_interval):
            try:
                self.step()
            except Exception:  # the loop of the service must not end; the trace is for people
                traceback.print_exc()

    def step(self):
        with self.store.lock:
            self._bury_workers()
            for bundle in list(self.store.bundles.values()):
                if bundle['bundle_type'] == 'run' and bundle['uuid'] not in self._busy:
                    self._judge(bundle)
            self._schedule()

    # ---- workers and silence ----

    def _bury_workers(self):
        now = time.time()
        for key, row in list(self.store.workers.items()):
            live = self.workers.live.get(key)
            held = live and live.closed and not live.closed()
            if now - row['last_checkin'] > self.config.worker_timeout and not held:
                self.workers.remove(key)

    def _judge(self, bundle):
        now, state = time.time(), bundle['state']
        silent = now - max(bundle['last_news'], bundle['state_since'])
        if state == 'created':
            self._stage(bundle)
        elif state == 'starting':
            if bundle['worker'] is None or silent > self.config.starting_timeout:
                self._unassign(bundle)
        elif state in ('preparing', 'running'):
            if bundle['worker'] is None:
                self.bundles.lose_worker(bundle, 'No worker claims bundle.')
            elif silent > self.config.worker_timeout:
                self.bundles.lose_worker(bundle, 'Worker offline.')
        elif state == 'finalizing':
            if bundle['worker'] is None:
                self.bundles.lose_worker(bundle, 'No worker claims bundle.')
            else:
                self._later(bundle, self._acknowledge)
        if bundle['state'] in ('staged', 'running') and \
                now - bundle['metadata']['created'] > self.config.stuck_days * DAY:
            self.bundles.fail(bundle, 'Bundle has been stuck in %s state for more than %d days.' % (
                bundle['state'], self.config.stuck_days))

    def _unassign(self, bundle):
        bundle['worker'] = None
        self.bundles.set_state(bundle, 'staged')

    def _stage(self, bundle):
        allowed = ('ready', 'failed', 'killed') if bundle['metadata'].get('allow_failed_dependencies') \
            else ('ready',)
        owner = self.oauth.user_by_id(bundle['owner_id'])
        for edge in bundle['dependencies']:
            parent = self.store.bundles.get(edge['parent_uuid'])
            if not parent or not self.bundles.may_read(owner, parent):
                return self.bundles.fail(bundle, 'Missing parent bundles: ' + edge['parent_uuid'])
            if parent['state'] in allowed:
                continue
            if parent['state'] in states.FINAL:
                return self.bundles.fail(bundle, 'Parent bundle %s is %s' % (
                    parent['uuid'], parent['state']))
            return None
        bundle['metadata']['staged_status'] = states.STAGED_STATUS
        return self.bundles.set_state(bundle, 'staged')

    # ---- deliveries ----

    def _later(self, bundle, action):
        self._busy.add(bundle['uuid'])
        self._pool.submit(self._guarded, bundle, action)

    def _guarded(self, bundle, action):
        try:
            action(bundle)
        except Exception:  # as in _loop
            traceback.print_exc()
        finally:
            with self.store.lock:
                self._busy.discard(bundle['uuid'])

    def _acknowledge(self, bundle):
        message = {'type': 'mark_finalized', 'uuid': bundle['uuid']}
        taken = self.workers.deliver(bundle['worker'], message, self.config.delivery)
        with self.store.lock:
            if taken and bundle['state'] == 'finalizing' and bundle['uuid'] in self.store.bundles:
                self.bundles.finish(bundle)

    def _send_run(self, bundle):
        with self.store.lock:
            row = self.store.workers.get(bundle['worker'])
            message = self.run_message(bundle, row) if row else None
        taken = message and self.workers.deliver(row['key'], message, self.config.delivery)
        with self.store.lock:
            if not taken and bundle['state'] == 'starting' and bundle['uuid'] in self.store.bundles:
                self._unassign(bundle)

    def run_message(self, bundle, row):
        view = self.bundles.wire(bundle)
        if row and row['checkin']['shared_file_system']:
            view['location'] = self.store.content(bundle['uuid'])
            if self.store.settings.get('make_dirs', True):
                os.makedirs(view['location'], exist_ok=True)
            view['dependencies'] = [dict(d, location=self.store.content(d['parent_uuid']))
                                    for d in bundle['dependencies']]
        return {'type': 'run', 'bundle': view, 'resources': self.resources(bundle)}

    # ---- scheduling ----

    def resources(self, bundle):
        wanted, owner = bundle['metadata'], self.oauth.user_by_id(bundle['owner_id'])
        gpus = int(wanted.get('request_gpus') or 0)
        image = wanted.get('request_docker_image') or \
            'codalab/default-%s:latest' % ('gpu' if gpus else 'cpu')
        queue = wanted.get('request_queue') or ''
        made = {
            'cpus': int(wanted.get('request_cpus') or 1), 'gpus': gpus,
            'docker_image': image if ':' in image else image + ':latest',
            'time': self._limit(wanted.get('request_time'), parse_time, owner, 'time'),
            'memory': parse_size(wanted.get('request_memory') or '2g'),
            'disk': self._limit(wanted.get('request_disk'), parse_size, owner, 'disk'),
            'network': bool(wanted.get('request_network')),
            'tag': re.sub(r'^tag=', '', queue), 'tag_exclusive': False, 'runs_left': None}
        made.update(bundle.get('resources') or {})
        return made

    def _limit(self, text, parse, owner, kind):
        """The request, or what min(quota left - 1, server maximum) gives without one (§1.7)."""
        if text:
            return parse(text)
        most = self.store.settings.get('max_' + kind, 0)
        if owner[kind + '_quota'] is None:
            return most
        return min(owner[kind + '_quota'] - owner[kind + '_used'] - 1, most)

    def _schedule(self):
        waiting = [b for b in self.store.bundles.values()
                   if b['state'] == 'staged' and b['uuid'] not in self._busy]
        waiting.sort(key=lambda b: (-(b['metadata'].get('request_priority') or 0),
                                    b['metadata']['created'], b['state_since']))
        taken = {key: collections.Counter() for key in self.store.workers}
        for bundle in self.store.bundles.values() if waiting else ():
            if bundle['worker'] in taken:
                self._take(taken[bundle['worker']], self.resources(bundle))
        for bundle in waiting:
            wanted, owner = self.resources(bundle), self.oauth.user_by_id(bundle['owner_id'])
            quota = owner['disk_quota']
            if quota is not None and wanted['disk'] > quota - owner['disk_used']:
                self.bundles.fail(bundle, 'Requested more disk (%d) than user disk quota left (%d)' % (
                    wanted['disk'], quota - owner['disk_used']))
                continue
            row = self._choose(bundle, wanted, owner, taken)
            if row:
                self._take(taken[row['key']], wanted)
                bundle['worker'] = row['key']
                self.bundles.set_state(bundle, 'starting')
                self._later(bundle, self._send_run)

    @staticmethod
    def _take(taken, wanted):
        """taken: what the bundles on a worker have, together."""
        taken.update(runs=1, **{name: wanted[name] for name in ('cpus', 'gpus', 'memory')})

    def _choose(self, bundle, wanted, owner, taken):
        fitting = [row for row in self.store.workers.values() if self._fits(row, wanted, taken[row['key']])]
        own = [row for row in fitting if row['user_id'] == owner['id']]
        others = [row for row in fitting if row not in own and
                  self.bundles.may_run(self.oauth.user_by_id(row['user_id']), bundle)]
        keys = [[d['parent_uuid'], d['parent_path']] for d in bundle['dependencies']]

        def order(row):
            has = row['checkin']
            cached = len(keys) if has['shared_file_system'] else \
                sum(key in has['dependencies'] for key in keys)
            return (not has['tag_exclusive'], has['gpus'], -cached, has['cpus'],
                    taken[row['key']]['runs'], random.random())
        for group in (own, others):
            if group:
                return min(group, key=order)
        return None

    @staticmethod
    def _fits(row, wanted, taken):
        has = row['checkin']
        if has['is_terminating'] or has['exit_after_num_runs'] == 0:
            return False
        if wanted['tag'] and wanted['tag'] != has['tag']:
            return False
        if not wanted['tag'] and has['tag_exclusive'] and has['tag']:
            return False
        for mine, theirs in (('cpus', 'cpus'), ('gpus', 'gpus'), ('memory', 'memory_bytes')):
            if has[theirs] - taken[mine] < wanted[mine]:
                return False
        return has['free_disk_bytes'] >= wanted['disk']
