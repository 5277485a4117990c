#!/usr/bin/env python3
"""The reference service itself: the whole life of a bundle, and every refusal provoked once."""
# timeout: 300
import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import reads  # noqa: E402
import reftest  # noqa: E402
import strict  # noqa: E402
from client import Refused  # noqa: E402
from fakeworker import FakeWebSocket, FakeWorker, tar_gz  # noqa: E402

FAST = {'checkin_hold': 0.25, 'manager_interval': 0.05, 'reply_timeout': 30.0}
LONG_SECONDS = 60
NO_BUNDLE = '0x' + '0' * 32


def packed(*members):
    """A tar.gz of (name, type, link) members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member)
    return out.getvalue()


class Case(unittest.TestCase):
    """Each test has a service, a client and a worker of its own."""
    flags, tls, clean, maxDiff = {}, False, True, None

    def setUp(self):
        self.service = reftest.Service(tls=self.tls, **{**FAST, **self.flags}).start()
        self.client = self.service.client
        self.worker = self.new_worker()
        self.assertEqual(self.worker.login()[0], 200)

    def new_worker(self, **more):
        return FakeWorker(self.service.url, ca=self.service.ca, **more)

    def tearDown(self):
        self.service.stop()
        try:
            self.assertNotIn('Traceback', self.service.log())
            if self.clean:
                self.service.assert_clean()
        finally:
            reftest.shutil.rmtree(self.service.directory)

    def running(self, command='true', **more):
        """A bundle that is running on the worker."""
        uuid = self.client.run(command, image='demo:1', **more)
        self.worker.take_run()
        self.worker.checkin([self.worker.record(uuid, 'running')])
        return uuid

    def until(self, condition, what):
        """Wait for it; returns what the condition was at last."""
        deadline = time.monotonic() + LONG_SECONDS
        while True:
            found = condition()
            if found:
                return found
            self.assertLess(time.monotonic(), deadline, 'waited in vain for ' + what)
            time.sleep(0.02)

    def states(self, uuid):
        return [s for _, s in self.client.info(uuid)['history']]

    def in_background(self, call, *args, **more):
        result = {}

        def work():
            try:
                result['value'] = call(*args, **more)
            except Exception as why:
                result['error'] = why
        thread = threading.Thread(target=work)
        thread.start()

        def join():
            thread.join()
            if 'error' in result:
                raise result['error']
            return result['value']
        return join


class Life(Case):
    def test_whole_cycle(self):
        data = self.client.upload(b'corpus')
        uuid = self.client.run('echo hi', [('data', data, '')], {'name': 'first'}, image='demo:1',
                               memory='64m', cpus=2, time='1d')
        message = self.worker.take_run()
        bundle, resources = message['bundle'], message['resources']
        self.assertEqual((bundle['uuid'], bundle['state'], bundle['command']),
                         (uuid, 'starting', 'echo hi'))
        self.assertEqual(bundle['dependencies'], [{
            'parent_name': 'data', 'parent_path': '', 'parent_uuid': data, 'child_path': 'data',
            'child_uuid': uuid, 'location': None}])
        self.assertEqual(resources, {
            'cpus': 2, 'gpus': 0, 'docker_image': 'demo:1', 'time': 86400.0, 'memory': 64 << 20,
            'disk': 0, 'network': False, 'tag': '', 'tag_exclusive': False, 'runs_left': None})
        self.worker.checkin([self.worker.record(uuid, 'preparing', run_status='Pulling')])
        self.assertEqual(self.client.info(uuid)['metadata']['run_status'], 'Pulling')
        self.worker.finish(uuid, {'stdout': b'hi\n', 'stderr': b'', 'd/long' + 'x' * 120: b'deep'})
        done = self.client.wait(uuid)
        self.assertEqual((done['state'], done['metadata']['exitcode']), ('ready', 0))
        self.assertEqual([s for _, s in done['history']],
                         ['created', 'staged', 'starting', 'preparing', 'running', 'finalizing', 'ready'])
        self.assertEqual(self.client.cat(uuid, 'stdout'), b'hi\n')
        self.assertEqual(self.client.files(uuid), ['d', 'd/long' + 'x' * 120, 'stderr', 'stdout'])
        self.assertEqual(done['metadata']['time_running'], 1.0)

    def test_final_states(self):
        for end, state, message in (
                ({'exitcode': 3}, 'failed', 'Exit code 3'),
                ({'exitcode': None, 'failure_message': 'Kill requested'}, 'killed', 'Kill requested'),
                ({'exitcode': 0, 'failure_message': 'odd'}, 'failed', 'odd')):
            with self.subTest(**end):
                uuid = self.client.run('x', image='demo:1')
                self.worker.take_run()
                self.worker.finish(uuid, None, **end)
                done = self.client.wait(uuid)
                self.assertEqual((done['state'], done['metadata']['failure_message']), (state, message))

    def test_upload_500_then_success(self):
        """D09: the text of the failed attempt stays, unless the worker clears it with ""."""
        for final, state in ((None, 'failed'), ('', 'ready')):
            uuid = self.running()
            self.client.fault(endpoint='upload', status=500)
            self.assertEqual(self.worker.upload(uuid, tar_gz({}))[0], 500)
            self.worker.finish(uuid, {'stdout': b''}, failure_message=final)
            self.assertEqual(self.client.wait(uuid)['state'], state)

    def test_dependency_states(self):
        parent = self.client.run('false', image='demo:1')
        child = self.client.run('true', [('p', parent, '')], image='demo:1')
        brave = self.client.run('true', [('p', parent, '')], {'allow_failed_dependencies': True},
                                image='demo:1')
        self.worker.take_run()
        self.worker.finish(parent, None, exitcode=1)
        self.assertEqual(self.client.wait(child)['state'], 'failed')
        self.assertEqual(self.worker.take_run()['bundle']['uuid'], brave)

    def test_kill_write_and_queue_of_messages(self):
        uuid = self.running()
        kill = self.in_background(self.client.kill, uuid=uuid)
        self.assertEqual(self.worker.await_message('kill', [self.worker.record(uuid, 'running')]),
                         {'type': 'kill', 'uuid': uuid})
        kill()
        write = self.in_background(self.client.write, uuid=uuid, subpath='m', string='x')
        self.assertEqual(
            self.worker.await_message('write', [self.worker.record(uuid, 'running')]),
            {'type': 'write', 'uuid': uuid, 'subpath': 'm', 'string': 'x'})
        write()

    def test_kill_before_a_worker_has_it(self):
        uuid = self.client.run('x', image='demo:1', cpus=64)
        self.client.kill(uuid=uuid)
        self.assertEqual(self.client.info(uuid)['state'], 'killed')

    def test_quota_kill_comes_first(self):
        uuid = self.running()
        self.client.set_user(name='codalab', time_quota=1)
        messages = self.worker.checkin([self.worker.record(uuid, 'running')])
        self.assertIn('User time quota exceeded', messages[0]['kill_message'])
        self.assertEqual(len(messages), 2)
        self.client.set_user(name='codalab', time_quota=None, disk_quota=1000)
        messages = self.worker.checkin([self.worker.record(uuid, 'running')])
        self.assertIn('User disk quota exceeded', messages[0]['kill_message'])

    def test_disk_quota_at_upload(self):
        uuid = self.running()
        self.client.set_user(name='codalab', disk_quota=10**6, disk_used=10**6 - 5)
        status, text = self.worker.upload(uuid, tar_gz({'f': b'123456789'}))
        self.assertEqual((status, text), (
            400, "Upload failed: Can't save bundle, user disk quota exceeded. Bundle size 9 greater than "
                 "user's disk quota left: 5"))
        self.assertEqual(self.client.info(uuid)['state'], 'failed')

    def test_start_bundle_answers(self):
        uuid = self.client.run('x', image='demo:1')
        self.assertEqual(self.worker.start_bundle(NO_BUNDLE)[0], 404)
        self.assertIs(self.worker.start_bundle(uuid), False)
        self.worker.take_run()
        self.assertIs(self.worker.start_bundle(uuid), True)
        self.client.add_user(name='other', password='p')
        other = self.new_worker(user='other', password='p', worker_id='o')
        other.login()
        self.assertEqual(other.start_bundle(uuid), (403, 'User does not have permission to run bundle.'))

    def test_run_refused_by_nobody_is_staged_again(self):
        self.worker.checkin()
        uuid = self.client.run('x', image='demo:1')

        def is_staged_again():
            states = self.states(uuid)
            return ['starting', 'staged'] in [states[n:n + 2] for n in range(len(states))]
        self.until(is_staged_again, 'the run to be staged again')

    def test_disk_survives_a_kill(self):
        uuid = self.running()
        self.service.kill()
        self.service.start()
        self.worker.finish(uuid, {'stdout': b'x'})
        self.assertEqual(self.client.wait(uuid)['state'], 'ready')

    def test_two_users_and_tags(self):
        self.client.add_user(name='u', password='p w&+%ü')
        other = self.new_worker(user='u', password='p w&+%ü', worker_id='other')
        self.assertEqual(other.login()[0], 200)
        other.checkin()
        self.worker.checkin(tag='big', tag_exclusive=True)
        plain = self.client.run('x', image='demo:1')
        tagged = self.client.run('x', image='demo:1', queue='tag=big')
        self.worker.fields.update(tag='big', tag_exclusive=True)
        self.assertEqual(self.worker.await_message('run')['bundle']['uuid'], tagged)
        self.assertIn(self.client.info(plain)['state'], ('staged',))

    def test_scheduler_prefers_who_has_the_dependency(self):
        data = self.client.upload(b'x')
        rich = self.new_worker(worker_id='rich')
        rich.login()
        rich.checkin(dependencies=[[data, '']])
        self.worker.checkin()
        uuid = self.client.run('x', [('d', data, '')], image='demo:1')
        self.assertEqual(self.client.wait(uuid, 'starting')['worker_id'], 'rich')

    def test_what_does_not_fit_waits(self):
        self.client.run('x', image='demo:1', cpus=3, memory='1g')
        self.worker.take_run()
        second = self.client.run('x', image='demo:1', cpus=2)
        third = self.client.run('x', image='demo:1', memory='8g')
        for _ in range(3):
            self.worker.checkin()
        self.assertEqual([self.client.info(u)['state'] for u in (second, third)], ['staged'] * 2)
        fourth = self.client.run('x', image='demo:1', memory='7g')
        self.assertEqual(self.worker.take_run()['bundle']['uuid'], fourth)

    def test_shared_file_system(self):
        data = self.client.upload(b'shared')
        self.worker.fields['shared_file_system'] = True
        self.client.run('x', [('d', data, '')], image='demo:1')
        bundle = self.worker.take_run()['bundle']
        self.assertTrue(os.path.isdir(bundle['location']))
        with open(bundle['dependencies'][0]['location']) as source:
            self.assertEqual(source.read(), 'shared')

    def test_admin_door(self):
        with self.assertRaises(Refused):
            self.client.no_such_verb()
        with self.assertRaises(Refused):
            self.client.fault(endpoint='upload', nonsense=1)

    def test_command_line(self):
        cl = os.path.join(reftest.HERE, 'cl-ref')
        call = lambda *a: subprocess.run([sys.executable, cl, '--server', self.service.url, *a],
                                         stdout=subprocess.PIPE, text=True)
        uuid = call('run', '--image', 'demo:1', '--name', 'n', 'echo hi').stdout.strip()
        self.worker.take_run()
        self.worker.checkin([self.worker.record(uuid, 'preparing', run_status='Pulling')])
        with subprocess.Popen([sys.executable, '-u', cl, '--server', self.service.url, 'wait', uuid, '--timeout', '100'],
                              stdout=subprocess.PIPE, text=True) as waiting:
            self.assertIn('preparing   Pulling', waiting.stdout.readline())
            self.worker.finish(uuid, {'stdout': b'hi\n'})
            self.assertIn('ready', waiting.stdout.read())
        self.assertEqual(waiting.returncode, 0)
        self.assertEqual(call('cat', uuid, 'stdout').stdout, 'hi\n')
        self.assertIn('straw(1)', call('workers').stdout)
        self.assertEqual(call('violations').returncode, 0)


class Deaths(Case):
    flags = {'worker_timeout': 4.0, 'starting_timeout': 2.0}

    def test_offline_and_back(self):
        uuid = self.running()
        socket_id = self.client.workers()[0]['socket_id']
        self.client.wait(uuid, 'worker_offline')
        self.until(lambda: not self.client.workers(), 'the row to go')
        self.worker.checkin([self.worker.record(uuid, 'running')])
        self.assertEqual(self.client.info(uuid)['state'], 'running')
        self.assertNotEqual(self.client.workers()[0]['socket_id'], socket_id)
        self.worker.finish(uuid, {})
        self.assertEqual(self.client.wait(uuid)['state'], 'ready')

    def test_stuck_in_starting(self):
        uuid = self.client.run('x', image='demo:1')
        self.worker.await_message('run')
        self.until(lambda: self.worker.checkin() and self.states(uuid).count('staged') >= 2, 'it to be staged again')

    def test_staged_report_and_new_start(self):
        uuid = self.running()
        self.worker.checkin([self.worker.record(uuid, 'staged')], is_terminating=True)
        self.assertEqual(self.client.info(uuid)['state'], 'staged')
        self.assertNotIn('time_running', self.client.info(uuid)['metadata'])
        other = self.new_worker(worker_id='second')
        other.login()
        other.take_run()
        other.finish(uuid, {})
        self.assertEqual(self.client.wait(uuid)['state'], 'ready')


class Preemption(Case):
    flags, clean = {'worker_timeout': 4.0}, False

    def test_preemptible_is_staged_and_must_not_be_reported(self):
        self.worker.fields['preemptible'] = True
        uuid = self.running()
        self.client.wait(uuid, 'staged')
        self.worker.fields['cpus'] = 0
        status, text = self.worker.checkin([self.worker.record(uuid, 'running')])
        self.assertEqual(status, 400)
        self.assertIn('B054', text)


class Reading(Case):
    def ask(self, uuid, call, reply):
        waiting = self.in_background(call)
        kind = 'netcat' if call.__name__ == 'netcat' else 'read'
        message = self.worker.await_message(kind, [self.worker.record(uuid, 'running')])
        reply(message)
        return waiting()

    def test_five_reads(self):
        uuid = self.running()
        info = {'name': uuid, 'type': 'directory', 'size': 4096, 'perm': 0o755, 'contents': [
            {'name': 'stdout', 'type': 'file', 'size': 3, 'perm': 0o644},
            {'name': 'l', 'type': 'link', 'size': 1, 'perm': 0o777, 'link': 'x'}],
            'resolved_target': {'bundle_uuid': uuid, 'subpath': ''}}
        got = self.ask(uuid, lambda: self.client.read(uuid, '', type='get_target_info', depth=1),
                       lambda m: self.worker.reply(m['socket_id'], {'target_info': info}))
        self.assertEqual(got, info)
        for args, data in (
                ({'type': 'stream_file'}, b'hi\n'),
                ({'type': 'read_file_section', 'offset': 1, 'length': 5}, b'i\n'),
                ({'type': 'read_file_section', 'offset': 9, 'length': 5}, b''),
                ({'type': 'summarize_file', 'num_head_lines': 1, 'num_tail_lines': 1,
                  'max_line_length': 9, 'truncation_text': None}, b'hi\n')):
            with self.subTest(**args):
                got = self.ask(uuid, lambda: self.client.read(uuid, 'stdout', **args),
                               lambda m: self.worker.reply_data(m['socket_id'], data, chunked=False))
                self.assertEqual(got, data)
        tree = gzip.decompress(tar_gz({'a': b'b'}))
        got = self.ask(uuid, lambda: self.client.read(uuid, '', type='stream_directory'),
                       lambda m: self.worker.reply_data(m['socket_id'], tree))
        with tarfile.open(fileobj=io.BytesIO(got)) as tar:
            self.assertEqual(tar.getnames(), ['.', './a'])

    def test_errors_and_dependencies(self):
        data = self.client.upload(tar_gz({'x': b'parent'}), kind='directory')
        uuid = self.running(dependencies=[('data', data, '')])
        not_found = lambda m: self.worker.reply(m['socket_id'], {'error_code': 404, 'error_message': 'no'})
        got = self.ask(uuid, lambda: self.client.read(uuid, 'data/x', type='stream_file'), not_found)
        self.assertEqual(got, b'parent')
        with self.assertRaises(Refused) as caught:
            self.ask(uuid, lambda: self.client.read(uuid, 'nix', type='stream_file'), not_found)
        self.assertEqual((caught.exception.status, caught.exception.text), (404, 'no'))

    def test_netcat(self):
        uuid = self.running()

        def netcat():
            return self.client.netcat(uuid, 5005, 'hi')
        got = self.ask(uuid, netcat, lambda m: self.worker.reply_data(
            m['socket_id'], b'', zipped=False, chunked=False))
        self.assertEqual(got, b'')
        got = self.ask(uuid, netcat, lambda m: self.worker.reply_data(
            m['socket_id'], b'raw', zipped=False))
        self.assertEqual(got, b'raw')

    def test_no_longer_running(self):
        uuid = self.running()
        self.worker.upload(uuid, tar_gz({'stdout': b'kept'}))
        got = self.ask(uuid, lambda: self.client.read(uuid, 'stdout', type='stream_file'),
                       lambda m: self.worker.reply(m['socket_id'], {
                           'error_code': 500, 'error_message': 'Bundle no longer running'}))
        self.assertEqual(got, b'kept')

    def test_foreign_socket(self):
        self.worker.checkin()
        self.assertEqual(self.worker.reply(4711, {'error_code': 1, 'error_message': ''}), 403)

    def test_summary_oracle(self):
        for text, args, wanted in (
                ('aaa\nbbb\n', (1, 0, 4, None), 'aaa\n'), ('aaa\nbbb\n', (0, 1, 4, None), 'bbb\n'),
                ('aaa\nbbb\n', (1, 1, 4, 'X'), 'aaa\nbbb\n'), ('aaa\nbbb\n', (1, 0, 3, None), ''),
                ('aaa\nbbb\n', (1, 1, 3, '....'), '....'),
                ('1\n2\n3\n4\n5\n', (1, 1, 128, 'X'), '1\nX5\n'), ('', (1, 1, 9, 'X'), ''),
                ('abc', (1, 1, 9, 'X'), 'abc\n'),
                ('aaaa\nbbbb\ncccc\nddd', (0, 1, 5, None), 'ddd\n')):
            self.assertEqual(reads.summary(text.encode(), *args), wanted, (text, args))
        self.assertEqual(reads.summary(b'\xff', 1, 1, 9, ''), '<binary>')


class Downloads(Case):
    def test_file_directory_and_range(self):
        file = self.client.upload(b'0123456789' * 10)
        tree = self.client.upload(tar_gz({'a b/ü': b'deep', '.git': b'', 'keep': b''}), kind='directory')
        status, headers, body = self.worker.get('/rest/bundles/%s/contents/info/' % file)
        self.assertIn(b'"type": "file"', body)
        blob = '/rest/bundles/%s/contents/blob/%s?support_redirect=1'
        status, headers, body = self.worker.get(blob % (file, ''))
        self.assertEqual((headers['Content-Encoding'], gzip.decompress(body)), ('gzip', b'0123456789' * 10))
        self.client.set(gzip_members=3)
        self.assertEqual(gzip.decompress(self.worker.get(blob % (file, ''))[2]), b'0123456789' * 10)
        status, headers, body = self.worker.get(blob % (file, ''), Range='bytes=5-7')
        self.assertEqual(gzip.decompress(body), b'567')
        status, headers, body = self.worker.get(blob % (tree, ''))
        self.assertEqual((headers['Content-Encoding'], headers['Target-Type']), ('identity', 'directory'))
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            self.assertEqual(sorted(tar.getnames()), ['.', './a b', './a b/ü', './keep'])
        status, _, body = self.worker.get(blob % (tree, ''), Range='bytes=0-1')
        self.assertEqual((status, body), (400, b'Range not supported for directory blobs.'))
        status, _, body = self.worker.get(blob % (tree, 'a%20b/%C3%BC'))
        self.assertEqual(gzip.decompress(body), b'deep')
        status, _, body = self.worker.get('/rest/bundles/%s/contents/info/nix' % tree)
        self.assertEqual((status, body.decode()), (404, "Path 'nix' in bundle %s not found" % tree))

    def test_redirect(self):
        for data, kind in ((b'far away', 'file'), (tar_gz({'x': b'y'}), 'directory')):
            uuid = self.client.upload(data, kind=kind, blob=True)
            status, headers, _ = self.worker.get('/rest/bundles/%s/contents/blob/?support_redirect=1' % uuid)
            self.assertEqual(status, 303)
            storage = FakeWorker(headers['Location'])
            path = storage.parts.path + '?' + storage.parts.query
            status, headers, body = storage.get(path)
            self.assertEqual((status, headers['Content-Encoding']),
                             (200, 'gzip' if kind == 'file' else 'identity'))
            if kind == 'file':
                self.assertEqual(gzip.decompress(body), data)
            self.assertEqual(storage.get(path + 'x')[0], 403)

    def test_start_bundle_twice(self):
        uuid = self.running()
        message = self.client.run_message(uuid=uuid)
        self.assertEqual(message['bundle']['uuid'], uuid)
        self.assertIs(self.worker.start_bundle(uuid), True)
        self.worker.finish(uuid, {})
        self.client.wait(uuid, 'ready')
        self.assertIs(self.worker.start_bundle(uuid), False)

    def test_half_a_request_is_no_request(self):
        for text in (b'POST /rest/wor', b'POST /rest/workers/x/checkin HTTP/1.1\r\nContent-Le',
                     b'POST /rest/workers/x/checkin HTTP/1.1\r\nHost: x\r\n'):
            connection = self.worker.connect()
            connection.connect()
            connection.sock.sendall(text)
            connection.close()
        self.assertEqual(self.worker.checkin(), [None])
        self.assertEqual([r['endpoint'] for r in self.client.requests()], ['token', 'checkin'])

    def test_permission(self):
        self.client.add_user(name='u', password='p')
        other = self.new_worker(user='u', password='p')
        other.login()
        uuid = self.client.upload(b'x')
        self.assertEqual(other.get('/rest/bundles/%s/contents/info/' % uuid)[0], 403)
        self.assertEqual(other.get('/rest/bundles/%s/contents/info/' % NO_BUNDLE)[0], 404)


class Faults(Case):
    def test_each_kind(self):
        self.client.fault(endpoint='checkin', status=520, count=2)
        self.assertEqual(self.worker.checkin()[0], 520)
        self.assertEqual(self.worker.checkin()[0], 520)
        self.assertEqual(self.worker.checkin(), [None])
        self.client.fault(endpoint='checkin', reset=True)
        with self.assertRaises(OSError):
            self.worker.checkin()
        self.client.fault(endpoint='checkin', content_type='text/html', skip=1)
        self.assertEqual(self.worker.checkin(), [None])
        uuid = self.client.upload(os.urandom(100000))
        blob = '/rest/bundles/%s/contents/blob/?support_redirect=1' % uuid
        self.client.fault(endpoint='blob', truncate=5000)
        with self.assertRaises(Exception):
            self.worker.get(blob)
        self.client.fault(endpoint='blob', truncate=5000, framed=True)
        self.assertEqual(len(self.worker.get(blob)[2]), 5000)
        self.client.fault(endpoint='blob', delay=0.3)
        before = time.monotonic()
        self.worker.get(blob)
        self.assertGreaterEqual(time.monotonic() - before, 0.3)

    def test_answer_lost_after_the_work(self):
        uuid = self.client.run('x', image='demo:1')
        self.worker.await_message('run')
        self.client.fault(endpoint='start_bundle', reset=True, after=True)
        with self.assertRaises(OSError):
            self.worker.start_bundle(uuid)
        self.assertEqual(self.client.info(uuid)['state'], 'preparing')
        self.worker.checkin([self.worker.record(uuid, 'running')])
        self.client.fault(endpoint='checkin', status=500, after=True)
        self.worker.fields['is_terminating'] = True
        self.assertEqual(self.worker.checkin([self.worker.record(uuid, 'staged')])[0], 500)
        self.worker.checkin([self.worker.record(uuid, 'staged')])

    def test_early_answer_to_an_upload(self):
        uuid = self.running()
        self.client.fault(endpoint='upload', status=400, body='Upload failed: no room', early=20000,
                          linger=0.2)
        connection = self.worker.connect()
        connection.putrequest('PUT', '/rest/bundles/%s/contents/blob/?filename=bundle.tar.gz'
                              '&finalize_on_success=0&store=' % uuid, skip_accept_encoding=True)
        for name, value in (('X-Requested-With', 'XMLHttpRequest'), ('Transfer-Encoding', 'chunked'),
                            ('Authorization', 'Bearer ' + self.worker.token)):
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(b'10000\r\n' + b'x' * 0x10000 + b'\r\n')
        answer = connection.getresponse()
        self.assertEqual((answer.status, answer.read()), (400, b'Upload failed: no room'))
        connection.close()
        self.assertEqual(self.client.info(uuid)['state'], 'failed')

    def test_dropped_tokens_and_variants(self):
        self.client.drop_tokens()
        self.assertEqual(self.worker.checkin(), (401, 'User is not authenticated.'))
        self.worker.login()
        for how in ('charset', 'gzip', 'plain'):
            self.client.set(json=how)
            status, headers, body = self.worker.request(
                'POST', '/rest/workers/%s/checkin' % self.worker.segment,
                reftest.json.dumps(self.worker.fields).encode(),
                {'Content-Type': strict.JSON_TYPE, 'Accept-Encoding': 'gzip'})
            self.assertEqual(headers['Content-Encoding'], 'gzip' if how == 'gzip' else None)
            self.assertEqual(gzip.decompress(body) if how == 'gzip' else body, b'[null]')
        self.client.set(checkin_answer='empty')
        status, _, body = self.worker.post('/rest/workers/%s/checkin' % self.worker.segment,
                                           self.worker.fields)
        self.assertEqual((status, body), (200, b''))

    def test_wrong_password_is_no_violation(self):
        self.worker.password = 'wrong'
        self.assertEqual(self.worker.login(), (401, {
            'error': 'invalid_grant', 'error_description': 'Invalid credentials given.'}))

    def test_go_away(self):
        def tried():
            try:
                return self.worker.checkin()
            except OSError:
                return None
        self.client.go_away(seconds=3)
        self.until(lambda: tried() is None, 'it to go')
        self.assertEqual(self.until(tried, 'it to be back'), [None])

    def test_sent_by_hand(self):
        self.worker.checkin()
        sending = self.in_background(self.client.send, worker=self.worker.id,
                                     message={'type': 'dance', 'uuid': NO_BUNDLE})
        self.assertEqual(self.worker.await_message('dance')['type'], 'dance')
        self.assertTrue(sending())


class Secure(Case):
    tls = True

    def test_over_tls(self):
        websocket = FakeWebSocket(self.worker)
        self.assertEqual(websocket.status, 101)
        websocket.send()
        uuid = self.client.run('x', image='demo:1')
        self.worker.take_run()
        self.worker.finish(uuid, {'stdout': b'x'})
        self.assertEqual(self.client.wait(uuid)['state'], 'ready')
        websocket.close()


class WebSockets(Case):
    flags = {'ws_ping': 3.0, 'ws_idle': 60.0}

    def test_wakes_and_pings(self):
        websocket = FakeWebSocket(self.worker)
        websocket.send()
        self.worker.checkin()
        self.assertTrue(self.client.workers()[0]['websocket'])
        self.client.run('x', image='demo:1')
        seen = set()
        while not {'text', 'ping'} <= seen:
            opcode, payload = websocket.receive()
            if opcode == 9:
                websocket.send(payload, 10)
                seen.add('ping')
            else:
                self.assertEqual((opcode, payload), (1, b'straw(1)'))
                seen.add('text')
        second = FakeWebSocket(self.worker)
        second.send()
        while True:
            frame = websocket.receive()
            if frame is None or frame[0] == 8:
                break
        second.close()
        websocket.close()


class Refusals(Case):
    """Each violation once: the request is refused, and its row is recorded."""
    clean = False

    def expect(self, row, got=None, status=400):
        """The last request was refused with `status`, and exactly `row` was recorded."""
        self.until(self.client.violations, row)  # on a websocket it is recorded behind the answer
        rows = {v['row'] for v in self.client.forgive()}
        self.assertEqual(rows, {row})
        if got is not None:
            self.assertEqual(got[0] if isinstance(got, tuple) else got, status)

    def reading(self, uuid, reply, path='', **args):
        """Answer a read with reply(message); the read itself may fail."""
        waiting = self.in_background(self.client.read, uuid, path, **args)
        message = self.worker.await_message('read', [self.worker.record(uuid, 'running')])
        got = reply(message)
        try:
            waiting()
        except Refused:
            pass
        return got


class Strictness(Refusals):
    def test_login(self):
        worker = self.new_worker()
        good = 'grant_type=password&username=codalab&password=codalab'
        for row, status, more in (
                ('B003', 401, {'headers': {'Authorization': None}}),
                ('B003', 401, {'headers': {'Authorization': 'Basic eDp5'}}),
                ('B003', 400, {'headers': {'Content-Type': 'application/json'}}),
                ('B003', 400, {'form': good + '&client_id=x'}),
                ('B003', 400, {'form': good.replace('=password', '=guess')}),
                ('B004', 400, {'form': good.replace('=codalab', '=co da', 1)}),
                ('B004', 400, {'form': good.replace('=codalab', '=%ff', 1)}),
                ('B002', 400, {'headers': {'X-Requested-With': None}})):
            with self.subTest(**more):
                self.expect(row, worker.login(**more), status)

    def test_headers(self):
        for row, status, headers in (
                ('B002', 400, {'X-Requested-With': None}), ('B002', 400, {'X-Requested-With': 'curl'}),
                ('B005', 401, {'Authorization': None}), ('B005', 401, {'Authorization': strict.CLIENT}),
                ('B005', 401, {'Authorization': 'Bearer made-up'}),
                ('B012', 400, {'Content-Type': 'application/json'})):
            with self.subTest(**headers):
                self.expect(row, self.worker.checkin(headers=headers), status)

    def test_paths(self):
        for row, method, path, status in (
                ('B001', 'GET', '/nowhere', 404), ('B001', 'POST', '/rest//workers/x/checkin', 404),
                ('B001', 'GET', '/rest/workers/x/checkin', 405),
                ('B019', 'POST', '/rest/workers/straw(1)/checkin', 400),
                ('B019', 'POST', '/rest/workers/a%2Fb/checkin', 400),
                ('B020', 'GET', '/rest/bundles/%s/contents/info/a"b' % NO_BUNDLE, 400),
                ('B127', 'GET', '/rest/bundles/%s/contents/blob/' % NO_BUNDLE, 400)):
            with self.subTest(path=path):
                self.expect(row, self.worker.request(method, path, b'' if method == 'POST' else None), status)

    def test_checkin_fields(self):
        for row, fields in (
                ('B021', {'cpus': 4.0}), ('B021', {'cpus': '4'}), ('B021', {'cpus': True}),
                ('B021', {'memory_bytes': None}), ('B021', {'hostname': None}),
                ('B022', {'dependencies': None}), ('B022', {'runs': {}}),
                ('B023', {'free_disk_bytes': None}), ('B023', {'free_disk_bytes': 1.5}),
                ('B027', {'tag_exclusive': True}), ('B027', {'tag': 7}),
                ('B028', {'exit_after_num_runs': -1}), ('B029', {'preemptible': 0}),
                ('B029', {'shared_file_system': None}), ('B189', {'is_terminating': 'no'}),
                ('B139', {'dependencies': [['0x1', '']]}), ('B139', {'dependencies': ['x']}),
                ('B051', {'dependencies': [[NO_BUNDLE, 'p' * 200]] * 300}),
                ('B052', {'hostname': 'ü'}), ('B052', {'hostname': 'x' * 9000})):
            with self.subTest(**{k: str(v)[:40] for k, v in fields.items()}):
                got = self.worker.post('/rest/workers/%s/checkin' % self.worker.segment,
                                       {**self.worker.fields, **fields})
                self.expect(row, got)

    def test_checkin_body(self):
        for name in self.worker.fields:
            body = {k: v for k, v in self.worker.fields.items() if k != name}
            with self.subTest(missing=name):
                got = self.worker.post('/rest/workers/%s/checkin' % self.worker.segment, body)
                self.assertEqual((got[0], len(self.client.forgive())), (400, 1))
        for raw in (b'{', b'[]', b'{"cpus": NaN}', b'{"a": 1, "a": 2}', b'\xff'):
            with self.subTest(raw=raw):
                self.expect('B021', self.worker.checkin(raw=raw))
        self.expect('B051', self.worker.checkin(raw=b' ' * (strict.BODY_MAX + 1)), 413)

    def test_run_records(self):
        uuid = self.running()
        record = lambda **more: self.worker.record(uuid, 'running', **more)
        bare = self.worker.record(uuid, 'finalizing')
        stats = {**bare['bundle_profile_stats']}
        del stats['RUN_STAGE.FINALIZING']
        never = {s: {'start': None, 'end': None, 'elapsed': None} for s in strict.STAGES}
        for row, one in (
                ('B021', record(uuid='0x1')), ('B021', record(run_status=None)), ('B030', record(remote='x')),
                ('B031', record(exitcode='0')), ('B031', record(exitcode=0.0)),
                ('B032', record(disk_utilization=None)), ('B032', record(disk_utilization=1.0)),
                ('B033', record(failure_message='')), ('B034', record(bundle_profile_stats=stats)),
                ('B034', record(bundle_profile_stats={**never, 'RUN_STAGE.RUNNING': {
                    'start': 1, 'end': 5, 'elapsed': 1}})),
                ('B035', {**bare, 'bundle_profile_stats': never}),
                ('B036', record(memory_usage=12345)), ('B037', record(container_time_user='0')),
                ('B038', record(container_time_total=0.5)), ('B052', record(run_status='é')),
                ('B056', record(uuid=self.client.run('x', cpus=64))), ('B060', record(state='ready')),
                ('B151', record(docker_image='demo:1'))):
            with self.subTest(row=row, one=str(one)[-80:]):
                self.expect(row, self.worker.checkin([one]))
        self.expect('B021', self.worker.checkin([record(), record()]))
        for key in bare:
            with self.subTest(missing=key):
                got = self.worker.checkin([{k: v for k, v in record().items() if k != key}])
                self.assertEqual((got[0], len(self.client.forgive())), (400, 1))

    def test_a_record_much_like_the_last_one(self):
        """What is not judged again is the very same record, and no other that Python takes for equal."""
        uuid = self.running()
        good = self.worker.record(uuid, 'running', exitcode=0, disk_utilization=1)
        for _ in range(2):
            self.assertEqual(self.worker.checkin([good]), [None])
        for row, more in (('B031', {'exitcode': False}), ('B031', {'exitcode': 0.0}), ('B032', {'disk_utilization': 1.0}),
                          ('B032', {'disk_utilization': True}), ('B052', {'run_status': 'é'})):
            for _ in range(2):
                with self.subTest(row=row, more=more):
                    self.expect(row, self.worker.checkin([{**good, **more}]))

    def test_reported_too_long(self):
        uuid = self.running()
        self.worker.finish(uuid, {})
        self.expect('B049', self.worker.checkin([self.worker.record(uuid, 'finalizing')]))
        uuid = self.running()
        self.worker.checkin([self.worker.record(uuid, 'staged')], is_terminating=True)
        self.expect('B050', self.worker.checkin([self.worker.record(uuid, 'staged')]))
        self.client.worker_crashed(worker=self.worker.id)
        self.worker.checkin([self.worker.record(uuid, 'staged')])
        self.assertEqual(self.client.forgive(), [])

    def test_run_of_another_worker(self):
        uuid = self.running()
        other = self.new_worker(worker_id='thief')
        other.login()
        self.expect('B054', other.checkin([other.record(uuid, 'running')]))

    def test_a_dead_clients_checkin_does_not_count(self):
        connection = self.worker.connect()
        body = reftest.json.dumps(self.worker.fields).encode()
        connection.request('POST', '/rest/workers/%s/checkin' % self.worker.segment, body, {
            'X-Requested-With': 'XMLHttpRequest', 'Content-Type': strict.JSON_TYPE,
            'Authorization': 'Bearer ' + self.worker.token})
        self.until(self.client.workers, 'the check-in')
        connection.close()
        self.assertEqual(self.worker.checkin(), [None])
        self.assertEqual(self.client.forgive(), [])

    def test_start_bundle(self):
        for fields in ({'start_time': 1.5}, {'hostname': None}):
            self.expect('B055', self.worker.start_bundle(NO_BUNDLE, **fields))

    def test_replies(self):
        data = self.client.upload(b'x')
        uuid = self.running(dependencies=[('dep', data, '')])
        info = {'name': uuid, 'type': 'directory', 'size': 1, 'perm': 493,
                'resolved_target': {'bundle_uuid': uuid, 'subpath': ''}}
        worker, target = self.worker, {'type': 'get_target_info', 'depth': 0}
        deep, stream = {'type': 'get_target_info', 'depth': 1}, {'type': 'stream_file'}
        tree = {'type': 'stream_directory'}
        child = {'name': 'dep', 'type': 'file', 'size': 1, 'perm': 420}
        say = lambda thing: lambda m: worker.reply(m['socket_id'], thing)
        send = lambda data, **more: lambda m: worker.reply_data(m['socket_id'], data, **more)
        plain = lambda files: gzip.decompress(tar_gz(files))
        for row, args, reply in (
                ('B165', target, say({})), ('B165', target, send(b'x')), ('B165', stream, say({'target_info': info})),
                ('B165', target, say({'error_code': '404', 'error_message': ''})),
                ('B157', target, say({'target_info': {**info, 'contents': []}})),
                ('B157', target, say({'target_info': {**info, 'size': 1.0}})),
                ('B158', target, say({'target_info': {**info, 'resolved_target': None}})),
                ('B159', deep, say({'target_info': {**info, 'contents': [child]}})),
                ('B165', stream, send(b'not gzip', zipped=False)),
                ('B165', stream, send(b'x', query='?header_message=%7B%22a%22%3A1%7D')),
                ('B165', stream, send(b'x', query='')),
                ('B166', tree, send(b'no tar')), ('B166', tree, send(plain({'.git': b''}))),
                ('B091', tree, send(plain({'dep': b''}))),
                ('B167', {'type': 'read_file_section', 'offset': 0, 'length': 2}, send(b'123'))):
            with self.subTest(row=row, args=args):
                self.expect(row, self.reading(uuid, reply, **args))
        twice = lambda m: (worker.reply_data(m['socket_id'], b'x'), worker.reply_data(m['socket_id'], b'x'))
        self.assertEqual(self.reading(uuid, twice, **stream), (200, 400))
        self.expect('B170')

    def test_upload(self):
        uuid = self.running()
        good = tar_gz({'f': b'x' * 1000})
        evil = lambda *members: packed(('./', tarfile.DIRTYPE, ''), *members)
        file, link, hard = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
        for row, more in (
                ('B113', {'query': 'filename=bundle.tar.gz&finalize_on_success=1&store='}),
                ('B113', {'query': 'filename=bundle.tar.gz&finalize_on_success=0'}),
                ('B113', {'query': 'filename=bundle.tar.gz&finalize_on_success=0&store=x'}),
                ('B113', {'chunked': False}), ('B113', {'headers': {'Content-Type': 'application/gzip'}}),
                ('B113', {'headers': {'Expect': '100-continue'}}),
                ('B114', {'archive': good[:-6]}), ('B114', {'archive': b'no gzip'}),
                ('B114', {'archive': gzip.compress(gzip.decompress(good)[:700])}),
                ('B114', {'archive': packed(('f', file, ''))}),
                ('B114', {'archive': evil(('./../f', file, ''))}),
                ('B114', {'archive': evil(('./l', link, '/tmp'), ('./l/f', file, ''))}),
                ('B114', {'archive': evil(('./h', hard, '../../users.json'))}),
                ('B114', {'archive': evil(('./n', tarfile.CHRTYPE, ''))}),
                ('B005', {'headers': {'Authorization': None}})):
            with self.subTest(row=row, **{k: str(v)[:60] for k, v in more.items()}):
                got = self.worker.upload(uuid, **{'archive': good, **more})
                self.expect(row, got, 401 if row == 'B005' else 400)
                self.client.worker_crashed(worker='x')
                self.worker.checkin([self.worker.record(uuid, 'running')])
        self.assertEqual(self.worker.upload(uuid, good)[0], 200)

    def test_token_to_the_redirect_target(self):
        uuid = self.client.upload(b'x', blob=True)
        _, headers, _ = self.worker.get('/rest/bundles/%s/contents/blob/?support_redirect=1' % uuid)
        storage = FakeWorker(headers['Location'])
        got = storage.get(storage.parts.path + '?' + storage.parts.query, Authorization='Bearer x')
        self.expect('B011', got, 403)

    def test_websocket(self):
        for more in ({'path': '/ws/worker/straw%281%29'}, {'headers': ['Authorization: Bearer x']},
                     {'path': '/ws/other'}, {'headers': ['Sec-WebSocket-Protocol: x']}):
            websocket = FakeWebSocket(self.worker, **more)
            websocket.close()
            self.expect('B180', websocket.status)
        for more in ({'payload': b'b'}, {'masked': False}, {'opcode': 2}):
            websocket = FakeWebSocket(self.worker)
            websocket.send(**more)
            while websocket.receive() not in (None, (8, b'\x03\xea')):
                pass
            websocket.close()
            self.expect('B181')


class InFlight(Refusals):
    flags = {'checkin_hold': 30.0}

    def test_two_checkins_in_flight(self):
        first = self.in_background(self.worker.checkin)
        self.until(self.client.workers, 'the first')
        self.expect('B040', self.worker.checkin())
        message = {'type': 'dance', 'uuid': NO_BUNDLE}
        self.assertTrue(self.client.send(worker=self.worker.id, message=message))  # the first is still listening
        self.assertEqual(first(), [message])


class Unanswered(Refusals):
    flags = {'reply_timeout': 5.0}

    def test_reply_never_comes(self):
        uuid = self.running()
        self.reading(uuid, lambda message: None, type='stream_file')
        self.expect('B170')


class Elsewhere(Case):
    flags = {'host': '::1', 'ws_port': 0, 'admin_token': 'secret'}

    def test_other_address_and_websocket_port(self):
        self.worker.checkin()
        listening = self.service.log()
        self.assertIn('listening http://[::1]:', listening)
        uuid = self.client.upload(b'far', blob=True)
        _, headers, _ = self.worker.get('/rest/bundles/%s/contents/blob/?support_redirect=1' % uuid)
        storage = FakeWorker(headers['Location'])
        _, _, body = storage.get(storage.parts.path + '?' + storage.parts.query)
        self.assertEqual(gzip.decompress(body), b'far')
        self.assertNotIn(':%d/' % self.service.port, self.service.ws_url)
        elsewhere = self.new_worker()
        elsewhere.parts = urllib.parse.urlsplit(self.service.ws_url)
        websocket = FakeWebSocket(elsewhere)
        self.assertEqual(websocket.status, 101)
        websocket.send()
        websocket.close()


class NoPong(Refusals):
    flags = {'ws_ping': 0.5, 'ws_idle': 60.0, 'token_expires_in': 1}

    def test_silent_websocket_and_old_token(self):
        websocket = FakeWebSocket(self.worker)
        while websocket.receive():
            pass
        websocket.close()
        self.expect('B183')
        time.sleep(1)
        self.assertEqual(self.worker.checkin()[0], 401)


class NoFrames(Refusals):
    flags = {'ws_ping': 3.0, 'ws_idle': 4.0}

    def test_pongs_are_not_enough(self):
        websocket, pings = FakeWebSocket(self.worker), 0
        for opcode, payload in iter(websocket.receive, None):
            if opcode == 9:
                websocket.send(payload, 10)
                pings += 1
        websocket.close()
        self.assertGreater(pings, 0)
        self.expect('B181')


class Old(Case):
    flags, clean = {'token_expires_in': 200}, False

    def test_renewal(self):
        """A token is renewed in time: here its expiry is moved on disk."""
        self.service.stop()
        path = os.path.join(self.service.data, 'tokens.json')
        with open(path) as source:
            tokens = reftest.json.load(source)
        for token in tokens.values():
            token['expires'] -= 100
        with open(path, 'w') as out:
            reftest.json.dump(tokens, out)
        self.service.start()
        self.assertEqual(self.worker.checkin()[0], 401)
        self.assertEqual([v['row'] for v in self.client.forgive()], ['B006'])


if __name__ == '__main__':
    unittest.main()
