#!/usr/bin/env python3
"""A bundle service that stumbles at every endpoint, forgets, goes away and comes back: runs go on and nothing is lost."""
# needs: root net
# timeout: 300
# rows: B007 B013 B015 B039 B041 B042 B043 B044 B053 B057 B118 B119 B121 B123 B125 B172 B210 B211
# rows: D01 D02 D03 D05 D09 D10 D12 D13 D14 D15 D18 D73 D84
import json
import os
import time

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
PASSWORD = 'pass&word+5Zq'
SECRET = 'command-that-no-log-shows'
WAIT = 'while [ ! -e go ]; do sleep 0.1; done; '


class SmallLab(worker_lab.Lab):
    def run(self, command, *dependencies, **more):
        return super().run(command, *dependencies, memory='64m', **more)


def run_dir(lab, uuid):
    return os.path.join(lab.work_dir, 'runs', uuid)


def let_go(lab, uuid):
    with open(os.path.join(run_dir(lab, uuid), 'go'), 'w'):
        pass


def count(client, endpoint, match=''):
    return len(client.requests(endpoint=endpoint, match=match))


def states(client, uuid):
    return [state for _, state in client.info(uuid)['history']]


def checkins_that_fail(lab, client, w):
    """Every kind of bad answer; the loop goes on for ever, with a pause after the second in a row."""
    # two in a row, the others with a good one in between
    for n, fault in enumerate(({'status': 520, 'body': 'cdn', 'count': 2}, {'status': 200, 'body': '[{"type": '}, {'reset': True},
                  {'status': 200, 'body': '[]', 'content_type': 'application/json; charset=utf-8', 'headers': {'Content-Encoding': 'gzip'}},
                  {'status': 403, 'body': 'no'}, {'truncate': 1})):
        client.fault(endpoint='checkin', skip=n, **fault)
    uuid = lab.run('echo through; ' + WAIT)
    lab.wait(uuid, 'running', 90)
    for how in ('charset', 'gzip'):
        for answer in ('lone', 'empty', 'no_null'):
            client.set(json=how, checkin_answer=answer)
            before = count(client, 'checkin')
            lab.until(lambda: count(client, 'checkin') > before + 1, 'a check-in with the answer ' + answer)
    client.set(json='plain', checkin_answer='array')
    let_go(lab, uuid)
    lab.wait(uuid, 'ready')
    equal(lab.cat(uuid), 'through\n')
    prefix = 'Disconnected from server! Failed check in: Unable to check in with bundle service: '
    for text in (' - cdn', 'Invalid JSON: [{"type":', 'Forbidden - no'):
        check(any(prefix in line and text in line for line in w.log().splitlines()), 'no line with', text)
    check('Checkin failed twice in a row, sleeping 5 seconds' in w.log(), 'no pause was told')


def pauses(client):
    """Nothing wakes an idle worker: at least a second between the end of a check-in and the next."""
    before = count(client, 'checkin')
    while count(client, 'checkin') < before + 3:
        time.sleep(0.1)
    last = client.requests(endpoint='checkin')[-3:]
    gaps = [b['time'] - a['time'] - a['took'] for a, b in zip(last, last[1:])]
    check(all(g > 0.95 for g in gaps), gaps)


def held_checkin(lab, client):
    """While the service sits on a check-in, limits are kept and results go out."""
    uuid = lab.run('echo begun; sleep 1000', time='8s')  # more than enough for the next two lines
    lab.wait(uuid, 'running')
    client.fault(endpoint='checkin', hold=True)
    lab.until(lambda: client.held() == 1, 'a check-in to be held')
    lab.until(lambda: count(client, 'upload', uuid) == 1, 'the results of the killed run')
    equal((client.held(), client.info(uuid)['state']), (1, 'running'))
    client.clear_faults()
    check(lab.wait(uuid, 'failed')['metadata']['failure_message'].startswith('Time limit exceeded. '), 'time limit')


def tokens_and_starts(lab, client):
    """Forgotten tokens; a start that is refused, unanswered, unheard."""
    uuid = lab.run(WAIT)
    lab.wait(uuid, 'running')
    client.drop_tokens()
    before = count(client, 'token')
    let_go(lab, uuid)
    lab.wait(uuid, 'ready')
    equal(count(client, 'token'), before + 1)
    for fault in ({'status': 403, 'body': 'User does not have permission to run bundle.'}, {'status': 404, 'body': 'gone'},
                  {'status': 200, 'body': 'false', 'content_type': 'application/json'}):
        client.fault(endpoint='start_bundle', **fault)
        uuid = lab.run('echo started')
        lab.wait(uuid, 'ready')  # given again after --starting-timeout
        check(count(client, 'start_bundle', uuid) >= 2 and states(client, uuid).count('starting') >= 2, states(client, uuid))
    client.fault(endpoint='start_bundle', status=530, body='cdn')
    client.fault(endpoint='start_bundle', reset=True, after=True)
    uuid = lab.run('echo started')
    lab.wait(uuid, 'ready')
    check(count(client, 'start_bundle', uuid) >= 3, count(client, 'start_bundle', uuid))


def uploads(lab, client):
    """Stumbling uploads are repeated, refused ones are not, and check-ins go on beside them."""
    client.fault(endpoint='upload', status=500)
    client.fault(endpoint='upload', status=522)
    client.fault(endpoint='upload', reset=True)
    uuid = lab.run('echo kept')
    bundle = lab.wait(uuid, 'ready')
    equal((lab.cat(uuid), bundle['metadata'].get('failure_message') or ''), ('kept\n', ''))
    equal(count(client, 'upload', uuid), 4)
    for status, reason in ((400, 'Bad Request'), (403, 'Forbidden'), (404, 'Not Found')):
        client.fault(endpoint='upload', status=status, body='quota')
        uuid = lab.run('echo lost')
        bundle = lab.wait(uuid, 'failed')
        lab.until(lambda: not os.path.exists(run_dir(lab, uuid)), 'the run to end')
        equal(client.info(uuid)['metadata']['failure_message'],
              'Error while uploading: Unable to update bundle contents in bundle service: %s - quota' % reason)
        equal(count(client, 'upload', uuid), 1)
    client.fault(endpoint='upload', hold=True)
    uuid = lab.run('echo partly; echo x > big')
    lab.until(lambda: client.held() == 1, 'the upload')
    seen = {client.info(uuid)['last_news']}
    lab.until(lambda: seen.add(client.info(uuid)['last_news']) or len(seen) > 3, 'check-ins that name the run')
    client.kill(uuid=uuid)  # at once, though the upload hangs
    equal(lab.wait(uuid, 'killed')['metadata']['failure_message'], 'Kill requested')
    client.clear_faults()


def forgotten(lab, client):
    """Declared dead while it was busy: its runs come back as they are; a reply to the old row is dropped."""
    uuid = lab.run('echo here; ' + WAIT)
    lab.wait(uuid, 'running')
    client.fault(endpoint='reply_data', hold=True)
    message = {'type': 'read', 'uuid': uuid, 'socket_id': 1, 'path': 'stdout', 'read_args': {'type': 'stream_file'}}
    check(client.send(worker='w1', message=message), 'not taken')
    lab.until(lambda: client.held() == 1, 'the reply')
    client.forget_worker(worker='w1')
    client.clear_faults()
    lab.until(lambda: 'worker_offline' in states(client, uuid) or states(client, uuid)[-1] == 'running', 'the loss')
    lab.until(lambda: client.info(uuid)['state'] == 'running', 'the run to be claimed again')
    let_go(lab, uuid)
    lab.wait(uuid, 'ready')
    equal(lab.cat(uuid), 'here\n')


def away(lab, client):
    """The service is gone while one run begins its end, one ends and one goes on."""
    ends, goes_on = lab.run('echo done > result; ' + WAIT), lab.run('echo begun; ' + WAIT)
    for uuid in (ends, goes_on):
        lab.wait(uuid, 'running')
    lab.service.kill()
    let_go(lab, ends)
    w = lab.workers[0]
    lab.until(lambda: '%s stage=RUN_STAGE.UPLOADING_RESULTS' % ends in w.log(), 'the upload to begin')
    lab.until(lambda: w.log().count('Disconnected from server!') > 8, 'some failures')
    lab.service.start()
    lab.wait(ends, 'ready')
    equal(lab.cat(ends, 'result'), 'done\n')
    lab.until(lambda: client.info(goes_on)['state'] == 'running', 'the other run')
    let_go(lab, goes_on)
    lab.wait(goes_on, 'ready')


def deleted(lab, client):
    """A bundle that is no more: its run is killed, also one that waits for mark_finalized, and the others are not."""
    running, other = lab.run('sleep 1000'), lab.run(WAIT)
    for uuid in (running, other):
        lab.wait(uuid, 'running')
    client.rm(uuid=running, force=True)
    lab.until(lambda: not os.path.exists(run_dir(lab, running)), 'the run of the deleted bundle to end')
    check(os.path.exists(run_dir(lab, other)), 'the other run is gone')
    let_go(lab, other)
    lab.wait(other, 'ready')


def figures(lab, client):
    """What `cl workers` shows."""
    uuid = lab.run(WAIT)
    lab.wait(uuid, 'running')
    row, = client.workers()
    told = row['checkin']
    disk = os.statvfs(lab.work_dir)
    equal((told['cpus'], told['gpus'], told['memory_bytes'], told['tag'], told['tag_exclusive'], told['preemptible'], row['runs']),
          (len(os.sched_getaffinity(0)), 0, 1 << 30, None, False, False, [uuid]))
    check(abs(told['free_disk_bytes'] - disk.f_bavail * disk.f_frsize) < (4 << 30), told['free_disk_bytes'])
    let_go(lab, uuid)
    lab.wait(uuid, 'ready')


def nothing_is_told(lab, w):
    """No password, token, command or message in the log, however verbose."""
    with open(w.log_path, errors='replace') as f:
        log = f.read()
    with open(os.path.join(lab.service.data, 'tokens.json')) as f:
        tokens = list(json.load(f))
    check(tokens, 'no tokens')
    for secret in (PASSWORD, SECRET, 'Authorization', *tokens):
        check(secret not in log, 'the log shows', secret)


with SmallLab(manager_interval=0.1, checkin_hold=0.5, starting_timeout=2, password=PASSWORD) as lab:
    c = lab.client
    c.fault(endpoint='token', status=520, body='cdn')
    c.fault(endpoint='token', reset=True)
    w = lab.worker('--bundle-check-seconds', '1', '--max-memory', '1g')
    check('The bundle service cannot be reached (attempt 2 of 5)' in w.log() and 'credentials' not in w.log(), w.log())
    checkins_that_fail(lab, c, w)
    pauses(c)
    held_checkin(lab, c)
    tokens_and_starts(lab, c)
    uploads(lab, c)
    forgotten(lab, c)
    away(lab, c)
    deleted(lab, c)
    figures(lab, c)
    secret = lab.run('echo %s; cat message; ' % SECRET + WAIT)
    lab.wait(secret, 'running')
    c.write(uuid=secret, subpath='message', string=SECRET)
    # Everything hangs: the end comes all the same.
    slow = c.upload(b'never')
    for endpoint in ('blob', 'upload', 'reply_data'):
        c.fault(endpoint=endpoint, hold=True)
    waits = lab.run('true', ('d', slow, ''))
    lab.until(lambda: c.held() == 1, 'the download')
    let_go(lab, secret)
    lab.until(lambda: c.held() == 2, 'the upload')
    equal(w.stop(), 0)
    nothing_is_told(lab, w)
    c.clear_faults()
    w.start()
    for uuid in (secret, waits):
        lab.wait(uuid, 'ready')
