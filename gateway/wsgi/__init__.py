"""gunicorn's threaded worker with limits on what one client can hold: timeouts, disconnects, connections, memory.

Kept instead of waitress (3.0.2, tried): waitress checks no request before it has read the body, puts bodies of more
than 512 KiB on disk and has no timeout for slow bodies. tests/unit/gateway/wsgi/test_gunicorn_internals.py lists every
private part of gunicorn that this package needs, and says what to do when one is gone.
"""
