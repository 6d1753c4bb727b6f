"""Checks the certificate files of a TLS backend at start, so that their errors name the file and the remedy."""

from __future__ import annotations

import ssl


def find_tls_file_errors(ca_file: str, cert_file: str, key_file: str) -> list[str]:
    """Return one message for each file that cannot be read or used. An empty path is not checked."""
    errors = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    named = (("backend_ca_file", ca_file), ("backend_cert_file", cert_file), ("backend_key_file", key_file))
    for name, path in named:
        if path and (reason := _find_read_error(path)):
            errors.append(f"Invalid {name} {path!r}: the file cannot be read: {reason}.")
    if errors:
        return errors
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (ssl.SSLError, ValueError):
            errors.append(f"Invalid backend_ca_file {ca_file!r}: it holds no certificate in PEM format.")
    if bool(cert_file) != bool(key_file):
        missing = "backend_cert_file" if key_file else "backend_key_file"
        errors.append(f"{missing} is missing. Set both backend_cert_file and backend_key_file, or neither.")
    elif cert_file:
        errors += _find_pair_error(context, cert_file, key_file)
    return errors


def _find_pair_error(context: ssl.SSLContext, cert_file: str, key_file: str) -> list[str]:
    try:
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")  # else OpenSSL would ask on the terminal
    except (ssl.SSLError, ValueError) as error:
        reason = str(getattr(error, "reason", "") or "")
        detail = (
            "the key does not belong to the certificate"
            if "MISMATCH" in reason
            else "both must be in PEM format, and the key without a passphrase"
        )
        return [f"Invalid backend_cert_file {cert_file!r} or backend_key_file {key_file!r}: {detail}."]
    return []


def _find_read_error(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the check is whether it opens
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""
