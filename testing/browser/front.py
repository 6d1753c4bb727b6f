"""Serves the folder front/ as a static host does."""

from __future__ import annotations

import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testing.data import ROOT


class _Front(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        del format, args


class FrontServer:
    """Serves a copy of front/ on `localhost`, which is a different site than 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "front", folder, dirs_exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Front, directory=str(folder)))
        self.origin = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def point_at(self, gateway_url: str) -> None:
        """Set the gateway's URL in the iframe of each page, as an operator does."""
        for page in self.folder.glob("**/index.html"):
            text, found = re.subn(r'(<iframe[^>]*\ssrc=")[^"?]*', rf"\g<1>{gateway_url.rstrip('/')}/", page.read_text())
            assert found == 1, f"{page} must have one iframe with the gateway's address"
            page.write_text(text)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
