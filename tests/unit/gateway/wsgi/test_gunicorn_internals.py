"""Names every internal of gunicorn that gateway/wsgi and gateway/server.py need: it fails before anything else does.

gunicorn documents none of them, so any release may change them. Read the failure message first: it says what to do.
"""

from __future__ import annotations

import importlib
import inspect
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import Message, Request
from gunicorn.http.parser import Parser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import create
from gunicorn.sock import close_sockets
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

WHAT_TO_DO = """
gunicorn changed an internal that this project relies on: {what}.
1. If the pin in pyproject.toml was just raised, keep the old version until this is done.
2. Read the new gunicorn/workers/gthread.py and find what replaced it.
3. Adapt {file}, then this table, and run tests/integration/http (slow clients, disconnects, memory, load).
4. If nothing replaces it, leave gunicorn: waitress (error_task_class, parser_class and channel_class are its seams) or
   nginx with request buffering in front. gateway/wsgi/__init__.py says what waitress lacks.
"""

# What GatewayWorker overrides or calls: name of the method -> names of its parameters.
WORKER_METHODS = {
    "init_signals": ("self",),
    "handle_exit": ("self", "sig", "frame"),
    "handle_quit": ("self", "sig", "frame"),
    "accept": ("self", "listener"),
    "get_thread_pool": ("self",),
    "enqueue_req": ("self", "conn"),
    "on_pending_socket_readable": ("self", "conn", "client"),
    "murder_pending": ("self",),
    "murder_keepalived": ("self", "force"),
    "handle": ("self", "conn"),
    "_keepalive_after": ("self", "conn", "keepalive"),
    "handle_request": ("self", "req", "conn"),
    "handle_error": ("self", "req", "client", "addr", "exc"),
    "finish_request": ("self", "conn", "fs"),
}
# What GatewayArbiter overrides or calls.
ARBITER_METHODS = {
    "run": ("self",),
    "init_signals": ("self",),
    **{f"handle_{name}": ("self",) for name in ("hup", "int", "quit", "term", "ttin", "ttou", "usr2", "winch")},
    "stop": ("self", "graceful"),
    "reap_workers": ("self",),
    "spawn_worker": ("self",),
    "kill_workers": ("self", "sig"),
    "wait_for_signals": ("self", "timeout"),
}
OTHER_FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "PollableMethodQueue.defer": (PollableMethodQueue.defer, ("self", "callback", "args"), "gateway/wsgi/worker.py"),
    "Logger.setup": (Logger.setup, ("self", "cfg"), "gateway/wsgi/worker.py"),
    "Logger.reopen_files": (Logger.reopen_files, ("self",), "gateway/wsgi/worker.py"),
    "Message.should_close": (Message.should_close, ("self",), "gateway/wsgi/worker.py"),
    "sock.close_sockets": (close_sockets, ("listeners", "unlink"), "gateway/wsgi/arbiter.py"),
    "HaltServer": (HaltServer, ("reason", "exit_status"), "gateway/wsgi/arbiter.py"),
    "wsgi.create": (
        create,
        ("req", "sock", "client", "server", "cfg", "response_class", "response_args"),
        "gateway/wsgi/timeouts.py",
    ),
}
# Which method of gunicorn calls which of those that GatewayWorker overrides: an override nobody calls does nothing.
CALLS = {
    "init_process": ("self.get_thread_pool(",),
    "accept": ("self.enqueue_req(conn)",),
    "on_pending_socket_readable": ("self.enqueue_req(conn)", "self.poller.unregister(", "self.pending_conns.remove("),
    "on_client_socket_readable": ("self.enqueue_req(conn)",),
    "run": ("self.murder_pending()", "self.nr_conns < self.worker_connections"),
    "handle": (
        "self.handle_request(req, conn)",
        "self._keepalive_after(conn, ",
        "self.handle_error(req, conn.sock, conn.client, ",
        "conn.data_ready",
    ),
    "finish_request": ("conn.parser.unreader.buf.getvalue()", "self.enqueue_req(conn)", "conn.close(graceful=True)"),
    "handle_request": ("resp.should_close()",),
    "murder_keepalived": ("conn.timeout - now",),
}
# The same for GatewayArbiter, and what a timeout of 0 and the hooks rely on.
ARBITER_CALLS = {
    "start": ("self.init_signals()",),
    "run": ('"handle_%s"', "self.halt()", "self.halt(reason=", "except (StopIteration, KeyboardInterrupt)"),
    "halt": ("self.stop()",),
    "handle_term": ("raise StopIteration",),
    "handle_chld": ("self.reap_workers()",),
    "handle_usr1": ("self.log.reopen_files()", "self.kill_workers(signal.SIGUSR1)"),
    "murder_workers": ("if not self.timeout",),
    "manage_workers": ("self.spawn_workers()",),
    "spawn_workers": ("self.spawn_worker()",),
    "spawn_worker": ("worker.init_process()", "self.cfg.worker_exit(self, worker)"),
}
ERRORS = (
    "InvalidResponseHeader",
    "InvalidResponseHeaderName",
    "LimitRequestHeaders",
    "LimitRequestLine",
    "ParseException",
    "UnsupportedTransferCoding",
)
CONFIG_KEYS = (
    "bind",
    "worker_class",
    "workers",
    "threads",
    "worker_connections",
    "backlog",
    "keepalive",
    "graceful_timeout",
    "timeout",
    "logger_class",
    "control_socket_disable",
    "forwarded_allow_ips",
    "post_worker_init",
    "worker_exit",
)


def demand(condition: object, what: str, file: str = "gateway/wsgi/worker.py") -> None:
    """Fail with what to do unless the condition holds."""
    if not condition:
        pytest.fail(WHAT_TO_DO.format(what=what, file=file), pytrace=False)


@pytest.fixture
def worker() -> Iterator[ThreadWorker]:
    """A worker of gunicorn's, as it is before the fork."""
    worker = ThreadWorker(1, 0, [], None, 30, Config(), None)
    yield worker
    worker.tmp.close()


@pytest.fixture
def connection() -> Iterator[TConn]:
    """A connection of gunicorn's with a parsed request on it."""
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        theirs.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nab")
        conn = TConn(Config(), ours, ("127.0.0.1", 1), ("127.0.0.1", 2))
        conn.init()
        yield conn


@pytest.mark.parametrize(("name", "parameters"), WORKER_METHODS.items())
def test_methods_of_the_worker_have_their_parameters(name: str, parameters: tuple[str, ...]) -> None:
    method = getattr(ThreadWorker, name, None)
    demand(method is not None, f"ThreadWorker.{name} is gone")
    found = tuple(inspect.signature(method).parameters)  # type: ignore[arg-type]
    demand(found == parameters, f"ThreadWorker.{name} has the parameters {found}, not {parameters}")


@pytest.mark.parametrize(("name", "parameters"), ARBITER_METHODS.items())
def test_methods_of_the_arbiter_have_their_parameters(name: str, parameters: tuple[str, ...]) -> None:
    method = getattr(Arbiter, name, None)
    demand(method is not None, f"Arbiter.{name} is gone", "gateway/wsgi/arbiter.py")
    found = tuple(inspect.signature(method).parameters)  # type: ignore[arg-type]
    demand(
        found == parameters, f"Arbiter.{name} has the parameters {found}, not {parameters}", "gateway/wsgi/arbiter.py"
    )


@pytest.mark.parametrize(("caller", "calls"), ARBITER_CALLS.items())
def test_gunicorn_still_calls_what_the_arbiter_overrides(caller: str, calls: tuple[str, ...]) -> None:
    source = inspect.getsource(getattr(Arbiter, caller))
    for call in calls:
        demand(call in source, f"Arbiter.{caller} no longer contains `{call}`", "gateway/wsgi/arbiter.py")


@pytest.mark.parametrize("name", ["LISTENERS", "WORKERS"])
def test_arbiter_has_its_attributes(name: str) -> None:
    demand(hasattr(Arbiter, name), f"Arbiter has no attribute {name}", "gateway/wsgi/arbiter.py")


@pytest.mark.parametrize("name", OTHER_FUNCTIONS)
def test_other_functions_have_their_parameters(name: str) -> None:
    function, parameters, file = OTHER_FUNCTIONS[name]
    found = tuple(inspect.signature(function).parameters)
    demand(found == parameters, f"{name} has the parameters {found}, not {parameters}", file)


@pytest.mark.parametrize(("caller", "calls"), CALLS.items())
def test_gunicorn_still_calls_what_the_worker_overrides(caller: str, calls: tuple[str, ...]) -> None:
    method = getattr(ThreadWorker, caller, None)
    demand(method is not None, f"ThreadWorker.{caller} is gone")
    source = inspect.getsource(method)  # type: ignore[arg-type]
    for call in calls:
        demand(call in source, f"ThreadWorker.{caller} no longer contains `{call}`")


@pytest.mark.parametrize(
    "name",
    [
        "nr_conns",
        "worker_connections",
        "pending_conns",
        "keepalived_conns",
        "tpool",
        "poller",
        "method_queue",
        "app",
        "alive",
    ],
)
def test_worker_has_its_attributes(worker: ThreadWorker, name: str) -> None:
    demand(hasattr(worker, name), f"ThreadWorker has no attribute {name}")


@pytest.mark.parametrize("name", ["age", "cfg", "booted", "pid"])
def test_server_finds_the_attributes_of_a_worker(worker: ThreadWorker, name: str) -> None:
    demand(hasattr(worker, name), f"Worker has no attribute {name}", "gateway/server.py")


def test_idle_connections_are_ordered_by_waiting_time(worker: ThreadWorker) -> None:
    for name in ("pending_conns", "keepalived_conns"):
        demand(hasattr(getattr(worker, name), "popleft"), f"ThreadWorker.{name} is not a deque: [0] may not be oldest")


@pytest.mark.parametrize("name", ["sock", "client", "timeout", "parser", "data_ready"])
def test_connection_has_its_attributes(connection: TConn, name: str) -> None:
    demand(hasattr(connection, name), f"TConn has no attribute {name}")


def test_connection_takes_further_attributes(connection: TConn) -> None:
    demand(hasattr(connection, "__dict__"), "TConn has __slots__: is_for_health and others cannot be set")


def test_bytes_read_ahead_are_in_the_parsers_buffer(connection: TConn) -> None:
    demand(isinstance(connection.parser, Parser), "TConn.parser is not a Parser")
    demand(isinstance(connection.parser.unreader, SocketUnreader), "Parser.unreader is not a SocketUnreader")
    demand(connection.parser.unreader.buf.getvalue() == b"", "Unreader.buf is not an empty BytesIO at first")
    next(connection.parser)
    demand(connection.parser.unreader.buf.getvalue() == b"ab", "Unreader.buf does not hold what was read ahead")


def test_unread_length_of_a_body_is_known(connection: TConn) -> None:
    request = next(connection.parser)
    demand(connection.parser.mesg is request, "Parser.mesg is not the current request")
    demand(isinstance(request.body, Body), "Request.body is not a Body")
    demand(isinstance(request.body.reader, LengthReader), "Body.reader is not a LengthReader")
    demand(request.body.reader.length == 5, "LengthReader.length is not the number of unread bytes")


def test_interim_response_100_can_be_left_to_the_application(connection: TConn) -> None:
    request = next(connection.parser)
    demand(isinstance(request, Request), "the parser does not return a Request")
    demand(request._expected_100_continue is True, "Request._expected_100_continue is not set by Expect: 100-continue")
    demand("req._expected_100_continue" in inspect.getsource(create), "wsgi.create ignores _expected_100_continue")


def test_request_can_be_told_to_close_its_connection(connection: TConn) -> None:
    request = next(connection.parser)
    demand(not request.should_close(), "Request.should_close() is true for HTTP/1.1 without a header")
    request.should_close = lambda: True
    source = inspect.getsource(importlib.import_module("gunicorn.http.wsgi").Response.should_close)
    demand("self.req.should_close()" in source, "Response.should_close no longer asks the request")


def test_headers_are_pairs_with_names_in_capitals(connection: TConn) -> None:
    demand(("HOST", "x") in next(connection.parser).headers, "Request.headers does not hold (NAME, value) pairs")


def test_application_gets_the_socket(connection: TConn) -> None:
    request = next(connection.parser)
    request._expected_100_continue = False
    _, environ = create(request, connection.sock, connection.client, ("127.0.0.1", 2), Config())
    demand(
        environ.get("gunicorn.socket") is connection.sock,
        "the WSGI environment has no gunicorn.socket",
        "gateway/wsgi/timeouts.py",
    )


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_the_parser_exist(name: str) -> None:
    demand(hasattr(importlib.import_module("gunicorn.http.errors"), name), f"gunicorn.http.errors.{name} is gone")


def test_parser_errors_have_distinct_classes() -> None:
    errors = importlib.import_module("gunicorn.http.errors")
    for name in ERRORS:
        kind = getattr(errors, name)
        demand(issubclass(kind, errors.ParseException), f"{name} is not a ParseException")


@pytest.mark.parametrize("key", CONFIG_KEYS)
def test_configuration_has_its_keys(key: str) -> None:
    demand(key in Config().settings, f"the setting {key} is gone", "gateway/server.py")


def test_arbiter_exits_with_a_worker_that_cannot_boot() -> None:
    demand(isinstance(getattr(Arbiter, "WORKER_BOOT_ERROR", None), int), "Arbiter.WORKER_BOOT_ERROR is gone")


def test_logger_has_its_attributes() -> None:
    source = inspect.getsource(Logger)
    for name in ("self.error_log", "self._access_log_enabled", "self.setup(cfg)"):
        demand(name in source, f"Logger no longer contains `{name}`")
