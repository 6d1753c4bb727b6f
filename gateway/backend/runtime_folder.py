"""The temporary folder of one embedded Triton: links to its Python backend and to its models.

Triton starts each Python stub with `bash -c "exec STUB MODEL ..."` and quotes nothing (2.51): a space or any other
character that is special to a shell, in the path of the stub or of the model repository, breaks the start. Every path
that Triton passes on therefore lies in this folder, whose own path is free of such characters.
"""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

from gateway.backend.triton_install import EmbeddedServerError, TritonPaths

# The name tells the stubs of our own servers from those of other Tritons on this machine (`triton_stubs`).
FOLDER_PREFIX = "superres-triton-"
# Tried after TMPDIR, where TMPDIR has a space, is missing or cannot be written.
_FALLBACKS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a folder with a random name is made inside


class RuntimeFolder:
    """The folder, from its creation until `remove`."""

    def __init__(self, triton: TritonPaths, model_repository: Path) -> None:
        """Create the folder and its links. Raises EmbeddedServerError without models or without a usable place."""
        if not model_repository.is_dir():
            raise EmbeddedServerError(
                f"Model repository not found: {model_repository}. "
                "Set SUPERRES_MODEL_REPOSITORY to the folder that holds Triton's models."
            )
        self._folder = _create_folder()
        self.path = Path(self._folder.name)
        self.backends = self.path
        """What Triton calls its backend directory: it holds the folder `python`."""
        self.models = self.path / "models"
        self.models.symlink_to(model_repository.resolve())
        # Triton wants the backend, its utilities and the stub of this Python in one folder; the wheel keeps them apart.
        python = self.backends / "python"
        python.mkdir()
        for part in (
            triton.backend / "libtriton_python.so",
            triton.backend / "triton_python_backend_utils.py",
            triton.stub,
        ):
            (python / part.name).symlink_to(part.resolve())

    def remove(self) -> None:
        """Delete the folder; what its links lead to stays."""
        self._folder.cleanup()


def _create_folder() -> tempfile.TemporaryDirectory[str]:
    preferred = tempfile.gettempdir()
    for parent in (preferred, *_FALLBACKS):
        if shlex.quote(parent) != parent:
            continue
        try:
            return tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=parent)
        except OSError:  # missing, full or read-only: try the next one
            continue
    raise EmbeddedServerError(
        f"The embedded Triton needs a writable temporary folder whose path has no spaces or special characters; "
        f"neither {preferred!r} nor {', '.join(_FALLBACKS)} is one. Set TMPDIR to such a folder."
    )
