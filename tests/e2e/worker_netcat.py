#!/usr/bin/env python3
"""Talking to a run, and being woken: netcat and netcurl, and the websocket with a worker that would else be silent for minutes."""
# needs: root net
# timeout: 200
# rows: B175 B176 B177 B179 B182 B183 B184 D66 D75
import os
import socket

import worker_lab
from worker_lab import check, equal

worker_lab.enter()
from client import Refused  # noqa: E402

COMMAND = r'''
mkdir www; printf 'page of the run\n' > www/index.html
nc -ll -p 5001 -e /bin/cat &
nc -ll -p 5002 -e /bin/true &
printf '#!/bin/sh\nprintf "\\000raw\\377"\n' > raw; printf '#!/bin/sh\nread line; echo "heard $line"; sleep 1000\n' > hears
chmod +x raw hears
nc -ll -p 5003 -e ./raw &
nc -ll -p 5004 -e ./hears &
httpd -p 8080 -h www
until [ "$(netstat -ltn | grep -cE ':(5001|5002|5003|5004|8080) ')" = 5 ]; do sleep 0.1; done
: > ready
while [ "$(cat go 2>/dev/null)" != now ]; do sleep 0.1; done
'''


def conversations(lab, client, uuid):
    lab.until(lambda: os.path.exists(os.path.join(lab.work_dir, 'runs', uuid, 'ready')), 'the listeners')
    equal(client.netcat(uuid, 5002, ''), b'')  # empty, at once
    equal(client.netcat(uuid, 5003, ''), b'\0raw\xff')  # as it is, not packed
    equal(client.netcat(uuid, 5001, 'gr\u00fc\u00df\n'), 'gr\u00fc\u00df\n'.encode())  # a peer that keeps open
    equal(client.netcat(uuid, 5004, 'hello\n'), b'heard hello\n')
    for port, text in ((9, '[Errno 111] Connection refused'), (0, 'the port must be between 1 and 65535'),
                       (65536, 'the port must be between 1 and 65535'), (-1, 'the port must be between 1 and 65535')):
        try:
            check(False, 'port', port, client.netcat(uuid, port, 'x'))
        except Refused as why:
            equal((why.status, why.text), (500, text))
    page = client.netcat(uuid, 8080, 'GET /index.html HTTP/1.1\r\nHost: run\r\nConnection: keep-alive\r\n\r\n')
    check(page.startswith(b'HTTP/1.1 200 OK\r\n') and page.endswith(b'\r\n\r\npage of the run\n'), page)
    page = client.netcat(uuid, 8080, 'GET /no HTTP/1.1\r\nHost: run\r\n\r\n')
    check(page.startswith(b'HTTP/1.1 404 '), page)


def checkins(client):
    return len(client.requests(endpoint='checkin'))


with worker_lab.Lab(manager_interval=0.1) as lab:
    c = lab.client
    # Only the websocket can make it check in again within ten minutes.
    w = lab.worker('--checkin-frequency-seconds', '600')
    uuid = lab.run(COMMAND)
    lab.until(lambda: c.requests(endpoint='start_bundle'), 'the run to be picked up')
    lab.until(lambda: c.ping(worker='w1') or c.info(uuid)['state'] == 'running', 'the run')
    conversations(lab, c, uuid)

    # The channel is cut, the service away; when it is back, it is refused a few times, then used again.
    lab.service.kill()
    lab.service.start()
    c.fault(endpoint='websocket', status=502)
    lab.until(lambda: checkins(c) > 0, 'a check-in after the channel came back')  # the new service has counted no other
    lab.until(lambda: c.ping(worker='w1') or c.info(uuid)['state'] == 'running', 'the run to be claimed again')
    equal(c.netcat(uuid, 5003, ''), b'\0raw\xff')
    c.write(uuid=uuid, subpath='go', string='now')
    lab.until(lambda: c.ping(worker='w1') or c.info(uuid)['state'] == 'ready', 'the end')
    equal(w.stop(), 0)

    # And without any channel.
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))  # nobody listens
        lab.worker('--ws-server', 'ws://127.0.0.1:%d' % closed.getsockname()[1], name='w2')
        uuid = lab.run('echo polled; sleep 1000')
        lab.wait(uuid, 'running')
        lab.until(lambda: c.cat(uuid, 'stdout') == b'polled\n', 'the output')
        check(not any(row['websocket'] for row in c.workers() if row['id'] == 'w2'), 'there was a channel')
        c.kill(uuid=uuid)
        lab.wait(uuid, 'killed')
