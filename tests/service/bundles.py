"""Bundles: states and what moves them, metadata, permission, the effect of a run record (§1.4, §3.3).

Every function wants the store's lock held. Fields of a bundle document beyond those of the wire:
    worker      key of the worker row it is assigned to (the server's `worker_run` row), or null
    started_on  ids of the workers that got `true` from start_bundle since it was last staged
    retired     worker id -> row: workers that must not mention the run any more (B049, B050)
    last_news   when a check-in or start_bundle last named it; state_since, history, statuses
"""
import secrets
import time

QUOTA_TEXT = ('Kill requested: User {kind} quota exceeded. To apply for more quota, please visit the '
              'following link: https://codalab-worksheets.readthedocs.io/en/latest/FAQ/'
              '#how-do-i-request-more-disk-quota-or-time-quota')
STARTING_STATUS = ('Waiting for worker to download bundle dependencies and Docker image to run the '
                   'bundle.')
STAGED_STATUS = ("Bundle's dependencies are all ready. Waiting for the bundle to be assigned to a "
                 'worker to be run.')
FINAL = ('ready', 'failed', 'killed')
ACTIVE = ('making', 'starting', 'preparing', 'running', 'finalizing')
KEPT_STATUSES = 1000
GENERATED = ('run_status', 'time', 'time_user', 'time_system', 'remote', 'remote_history', 'cpu_usage',
             'memory_usage', 'data_size', 'docker_image', 'time_preparing', 'time_running',
             'time_cleaning_up', 'time_uploading_results', 'failure_message', 'exitcode', 'started',
             'on_preemptible_worker', 'staged_status', 'last_updated')
WIRE = ('uuid', 'bundle_type', 'owner_id', 'command', 'state', 'frozen', 'is_anonymous', 'metadata',
        'args', 'dependencies', 'location')


class Bundles:
    def __init__(self, store, oauth):
        self.store, self.oauth = store, oauth
        self._saved = {}  # uuid -> when a report was last written down

    # ---- creation ----

    def create_run(self, owner, command, dependencies=(), metadata=None):
        """dependencies: (child_path, parent_uuid, parent_path) triples."""
        uuid = '0x' + secrets.token_hex(16)
        made = {
            'name': 'run', 'description': '', 'tags': [], 'allow_failed_dependencies': False,
            'exclude_patterns': [], 'store': '', 'request_cpus': 1, 'request_gpus': 0,
            'request_memory': '2g', 'request_disk': '', 'request_time': '', 'request_network': False,
            'request_docker_image': '', 'request_priority': 0, 'request_queue': '',
            'actions': [], 'remote_history': [], 'created': int(time.time()), **(metadata or {})}
        edges = [{'parent_name': child, 'parent_path': path, 'parent_uuid': parent,
                  'child_path': child, 'child_uuid': uuid, 'location': None}
                 for child, parent, path in dependencies]
        return self._add(uuid, 'run', owner, command, made, edges, 'created')

    def create_dataset(self, owner, name, blob=False):
        uuid = '0x' + secrets.token_hex(16)
        bundle = self._add(uuid, 'dataset', owner, None, {'name': name, 'created': int(time.time())}, [],
                           'uploading')
        bundle['blob'] = blob
        return bundle

    def _add(self, uuid, kind, owner, command, metadata, dependencies, state):
        keys = ' '.join('%s:%s' % (d['child_path'], d['parent_uuid']) for d in dependencies)
        bundle = {
            'uuid': uuid, 'bundle_type': kind, 'owner_id': owner['id'], 'command': command,
            'state': None, 'frozen': None, 'is_anonymous': False, 'metadata': metadata,
            'args': 'run %s "%s"' % (keys, command), 'dependencies': dependencies, 'location': None,
            'worker': None, 'started_on': [], 'retired': {}, 'last_news': time.time(), 'history': [],
            'statuses': [], 'upload_5xx': False, 'public': False, 'blob': False, 'time_seen': 0}
        self.store.bundles[uuid] = bundle
        self.set_state(bundle, state)
        return bundle

    # ---- state ----

    def set_state(self, bundle, state):
        now = time.time()
        if bundle['state'] != state:
            bundle['history'].append([round(now, 3), state])
            bundle['state_since'] = now
        bundle['state'] = state
        self.store.save_bundle(bundle)

    def fail(self, bundle, message):
        bundle['metadata']['failure_message'] = message
        bundle['worker'] = None
        self.set_state(bundle, 'failed')

    def stage(self, bundle):
        """Back to the queue: what the last worker left in the metadata is forgotten."""
        for key in GENERATED:
            bundle['metadata'].pop(key, None)
        bundle['metadata'].update(remote_history=[], staged_status=STAGED_STATUS)
        bundle.update(worker=None, started_on=[], time_seen=0, upload_5xx=False)
        self.set_state(bundle, 'staged')

    def lose_worker(self, bundle, why):
        """The worker is gone: a preemptible run is staged again, any other waits for it (§1.4)."""
        if bundle['metadata'].get('on_preemptible_worker'):
            self.stage(bundle)
        else:
            bundle['worker'] = None
            bundle['metadata']['failure_message_of_server'] = why
            self.set_state(bundle, 'worker_offline')

    def finish(self, bundle):
        """The final state rule (§1.5)."""
        message = bundle['metadata'].get('failure_message') or ''
        state = 'failed' if message or bundle['metadata'].get('exitcode') else 'ready'
        if 'Kill requested' in message:
            state = 'killed'
        bundle['worker'] = None
        self.set_state(bundle, state)

    def start(self, bundle, worker, body):
        """start_bundle (§2.5.3): true as long as the bundle is this worker's, whatever its state."""
        if bundle['worker'] != worker['key']:
            return False
        bundle['metadata'].update(
            started=body['start_time'], last_updated=body['start_time'], remote=body['hostname'],
            on_preemptible_worker=worker['checkin']['preemptible'], run_status=STARTING_STATUS)
        bundle['metadata'].setdefault('remote_history', []).append(body['hostname'])
        if worker['id'] not in bundle['started_on']:
            bundle['started_on'].append(worker['id'])
        bundle['retired'].pop(worker['id'], None)
        bundle.update(last_news=time.time(), time_seen=0)
        self.set_state(bundle, 'preparing')
        return True

    # ---- check-in ----

    def report_errors(self, worker_id, key, record):
        """What a well-formed run record may still do wrong, given the bundle as we know it."""
        bundle = self.store.bundles.get(record['uuid'])
        if not bundle:
            return []
        uuid, state = record['uuid'], bundle['state']
        if record['state'] == state == 'staged' and worker_id not in bundle['retired']:
            return []  # the answer to the first report was lost
        if worker_id in bundle['retired']:
            row = bundle['retired'][worker_id]
            what = 'mark_finalized' if row == 'B049' else 'its staged report was accepted'
            return [(row, '%s is reported %s after %s' % (uuid, record['state'], what))]
        if state in ('created', 'staged', 'starting') and bundle['history'] and \
                any(s == 'preparing' for _, s in bundle['history']):
            return [('B054', '%s is reported %s, but was staged again' % (uuid, record['state']))]
        if bundle['worker'] not in (None, key):
            return [('B054', '%s is reported %s, but is with another worker' % (uuid, record['state']))]
        if worker_id not in bundle['started_on']:
            return [('B056', '%s is reported %s without start_bundle' % (uuid, record['state']))]
        if record['container_time_total'] < bundle['time_seen']:
            return [('B038', '%s: container_time_total fell from %s to %s' % (
                uuid, bundle['time_seen'], record['container_time_total']))]
        if record['failure_message'] == '' and not bundle['upload_5xx']:
            return [('B033', '%s: failure_message is empty, not null' % uuid)]
        return []

    def apply(self, worker, worker_user, record, told_before=False):
        """One run record (§1.8 2). Returns the text of a quota kill, or None. told_before: the last check-in had the very
        same; then nothing but the time changes, which is written down once a second."""
        bundle = self.store.bundles.get(record['uuid'])
        if not bundle:
            return None
        if record['state'] == 'staged':
            self.stage(bundle)
            return None
        owner, now = self.oauth.user_by_id(bundle['owner_id']), time.time()
        if told_before and bundle['state'] == record['state'] and bundle['worker'] == worker['key'] and \
                now - self._saved.get(bundle['uuid'], 0) < 1:
            bundle['last_news'] = now
            bundle['metadata']['last_updated'] = int(now)
        else:
            self._apply_news(worker, worker_user, owner, bundle, record)
            self._saved[bundle['uuid']] = now
        for kind in ('time', 'disk'):
            if owner[kind + '_quota'] is not None and owner[kind + '_used'] >= owner[kind + '_quota']:
                return QUOTA_TEXT.format(kind=kind)
        return None

    def _apply_news(self, worker, worker_user, owner, bundle, record):
        self._charge(owner, worker_user, bundle, record)
        self._store_metadata(bundle, record)
        if bundle['worker'] is None:
            bundle['worker'] = worker['key']
        bundle.update(last_news=time.time(), time_seen=record['container_time_total'])
        self.set_state(bundle, record['state'])

    def _charge(self, owner, worker_user, bundle, record):
        seen, before = bundle['metadata'], (owner['disk_used'], owner['time_used'])
        owner['disk_used'] += record['disk_utilization'] - seen.get('data_size', 0)
        if worker_user['root']:
            owner['time_used'] += record['container_time_total'] - seen.get('time', 0)
        if (owner['disk_used'], owner['time_used']) != before:
            self.store.save('users')

    def _store_metadata(self, bundle, record):
        stored = bundle['metadata']
        stored.update(
            run_status=record['run_status'], last_updated=int(time.time()),
            time=record['container_time_total'], time_user=record['container_time_user'],
            time_system=record['container_time_system'], remote=record['remote'],
            cpu_usage=record['cpu_usage'], memory_usage=record['memory_usage'])
        if bundle['state'] != 'failed':
            stored['data_size'] = record['disk_utilization']
        if record['docker_image'] is not None:
            stored['docker_image'] = record['docker_image']
        for stage, times in (record['bundle_profile_stats'] or {}).items():
            name = 'time_' + stage.split('.', 1)[1].lower()
            if times['elapsed'] is not None and name != 'time_finalizing':
                stored[name] = times['elapsed']
        if record['state'] == 'finalizing':
            self._store_end(stored, record)
        self._note_status(bundle, record['run_status'])

    @staticmethod
    def _store_end(stored, record):
        message = record['failure_message']
        if message is None and record['exitcode']:
            message = 'Exit code %d' % record['exitcode']
        if message is not None:
            stored['failure_message'] = message
        if record['exitcode'] is not None:
            stored['exitcode'] = record['exitcode']

    @staticmethod
    def _note_status(bundle, status):
        known = bundle['statuses']
        if (not known or known[-1][1] != status) and len(known) < KEPT_STATUSES:
            known.append([round(time.time(), 3), status])

    # ---- views and permission ----

    def wire(self, bundle):
        """The bundle as a `run` message has it."""
        view = {key: bundle[key] for key in WIRE}
        view['metadata'] = {k: v for k, v in bundle['metadata'].items()
                            if k != 'failure_message_of_server'}
        return view

    @staticmethod
    def may_read(user, bundle):
        return user['root'] or user['id'] == bundle['owner_id'] or bundle['public']

    @staticmethod
    def may_run(user, bundle):
        return user['root'] or user['id'] == bundle['owner_id']
