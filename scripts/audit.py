"""`make audit`: ask pip-audit's vulnerability database about every package of requirements.lock.

pip-audit reports a package that the database does not know as skipped and exits with 0. That would hide a database that
cannot be reached or a mirror without one, so a skipped package is a failure here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import lock

UNKNOWN, VULNERABLE = 2, 1


def main() -> int:
    """Print what was found. Return 0 only if every package was checked and none has a known vulnerability."""
    entries = lock.select_entries((lock.ROOT / lock.LOCK).read_text(), [*lock.TARGETS, "triton", "cuda"])
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(entries)
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--disable-pip", "--no-deps"]
        command += ["--format=json", "--progress-spinner=off"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
    code, text = judge(done.stdout, done.stderr)
    sys.stdout.write(f"{text}\n")
    return code


def judge(output: str, errors: str) -> tuple[int, str]:
    """Return the exit code and the message for pip-audit's JSON output and its standard error."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError):
        last = (errors.strip().splitlines() or ["no message"])[-1][:300]
        return UNKNOWN, f"audit: nothing was checked, the vulnerability database cannot be reached: {last}"
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    found = [
        f"{package['name']} {package['version']}: {flaw['id']}, fixed in {flaw['fix_versions'] or 'no version'}"
        for package in packages
        for flaw in package.get("vulns", [])
    ]
    if skipped or not packages:
        found.append(
            f"audit: {len(skipped)} of {len(packages)} packages were not checked, since the vulnerability database "
            f"does not know them ({', '.join(skipped[:3])} ...). Run make audit where the package index has one."
        )
        return UNKNOWN, "\n".join(found)
    if found:
        return VULNERABLE, "\n".join([*found, f"audit: {len(found)} known vulnerabilities"])
    return 0, f"audit: {len(packages)} packages checked, no known vulnerability"


if __name__ == "__main__":
    sys.exit(main())
