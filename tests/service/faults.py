"""Faults the tests order: the next N answers of an endpoint go wrong in a given way.

A fault is an object; `endpoint` is one of token checkin start_bundle reply reply_data upload info
blob bundle storage websocket, or "*". What it does:
    status, body, headers     answer this instead
    delay                     wait so many seconds first
    hold                      wait until clear_faults is called, then go on as if nothing had been
    reset                     cut the connection with a TCP reset, no answer
    truncate                  send only so many bytes of the answer's body, then cut the connection;
                              with framed, end the body properly there instead
    content_type              label the true answer so
    early                     upload: answer `status` after so many bytes, while the client still sends
    linger                    with early: leave the client's bytes unread for so long (2 s)
    rate                      read the request body at so many bytes a second
Which requests: count (1; 0 = until cleared), skip (let so many through first), match (a part of the
path). With `after` the request is carried out first, and only its answer is spoiled.
"""
import threading

KNOWN = {'endpoint', 'status', 'body', 'headers', 'delay', 'hold', 'reset', 'truncate', 'framed', 'content_type',
         'early', 'linger', 'rate', 'count', 'skip', 'match', 'after'}


class Faults:
    def __init__(self):
        self._lock = threading.Lock()
        self._list = []
        self._let_go = threading.Event()
        self.held = 0

    def add(self, fault):
        unknown = set(fault) - KNOWN
        if unknown or 'endpoint' not in fault:
            raise ValueError('a fault has no %s' % (', '.join(sorted(unknown)) or 'endpoint'))
        with self._lock:
            self._list.append(dict(fault, left=fault.get('count', 1), skip=fault.get('skip', 0)))

    def clear(self):
        with self._lock:
            self._list.clear()
            self._let_go.set()
            self._let_go = threading.Event()

    def hold(self):
        with self._lock:
            let_go = self._let_go
            self.held += 1
        let_go.wait()
        with self._lock:
            self.held -= 1

    def list(self):
        with self._lock:
            return [dict(f) for f in self._list]

    def take(self, endpoint, path):
        """The fault that applies to this request, or {}; counts it."""
        with self._lock:
            for fault in self._list:
                if fault['endpoint'] not in (endpoint, '*') or fault.get('match', '') not in path:
                    continue
                if fault['skip'] > 0:
                    fault['skip'] -= 1
                    continue
                if fault.get('count', 1):
                    fault['left'] -= 1
                    if fault['left'] == 0:
                        self._list.remove(fault)
                return fault
        return {}
