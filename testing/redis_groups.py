"""Several real redis-servers that belong together: a master with its replica, a Sentinel above them, a cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from testing.ports import find_free_port
from testing.redis_server import RedisServer, execute, wait_for

SERVICE = "superres-master"


@contextmanager
def running(*servers: RedisServer) -> Iterator[None]:
    """Kill servers at the end."""
    try:
        yield
    finally:
        for server in servers:
            server.kill()


def follow(replica: RedisServer, master: RedisServer) -> None:
    """Make a server a replica, and wait until it has its master's data."""
    replica.execute("REPLICAOF", master.host, master.port)
    wait_for(lambda: replica.execute("ROLE")[3] == "connected", "the replica is connected")


def catch_up(replica: RedisServer, master: RedisServer) -> None:
    """Wait until a replica has all writes so far."""
    written = int(master.execute("ROLE")[1])
    wait_for(lambda: int(replica.execute("ROLE")[4]) >= written, "the replica has all writes")


def fail_over(master: RedisServer, replica: RedisServer) -> None:
    """Let two servers exchange their roles without losing a write."""
    catch_up(replica, master)
    replica.execute("REPLICAOF", "NO", "ONE")
    master.execute("REPLICAOF", replica.host, replica.port)


class SentinelGroup:
    """A master, a replica and one Sentinel that decides alone."""

    def __init__(self, folder: Path) -> None:
        self.master, self.replica = RedisServer(folder), RedisServer(folder)
        follow(self.replica, self.master)
        self.sentinel_port = find_free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self.sentinel_port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 1\n"
            # Only fail_over() promotes the replica. With 500 ms, a machine that stalled for so long did it as well.
            f"sentinel down-after-milliseconds {SERVICE} 120000\nsentinel failover-timeout {SERVICE} 60000\n"
        )
        command = shutil.which("redis-server")
        assert command
        self._process = subprocess.Popen([command, str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        wait_for(self._knows_the_replica, "the Sentinel knows the replica")

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel_port}/{SERVICE}"

    def fail_over(self) -> None:
        """Promote the replica, and wait until the Sentinel names it as the master."""
        catch_up(self.replica, self.master)
        wait_for(self._has_failed_over, "the Sentinel names the new master")
        wait_for(lambda: self.replica.execute("ROLE")[0] == "master", "the replica is promoted")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for server in (self.master, self.replica):
            server.kill()

    def _has_failed_over(self) -> bool:
        """Return whether the replica is the master, and begin a failover if not."""
        if self._master_port() == self.replica.port:
            return True
        try:
            self._ask("FAILOVER")
        except redis.ResponseError as error:
            # The Sentinel takes a replica only some seconds after it has found it, and gives up an attempt that stalls.
            if not any(code in str(error) for code in ("NOGOODSLAVE", "INPROG")):
                raise
        return False

    def _master_port(self) -> int:
        return int(self._ask("GET-MASTER-ADDR-BY-NAME")[1])

    def _knows_the_replica(self) -> bool:
        try:
            return bool(self._ask("REPLICAS"))
        except redis.ConnectionError:
            return False

    def _ask(self, command: str) -> Any:
        return execute("127.0.0.1", self.sentinel_port, "SENTINEL", command, SERVICE)


class ClusterServers:
    """A cluster without replicas: each server has a part of the slots.

    The node timeout is the default of 15 s. With 1 s, a server that stalled for so long during MEET never joined.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.servers: list[RedisServer] = []
        for number in range(count):
            options = ("--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{number}.conf")
            self.servers.append(RedisServer(folder, *options, port=find_free_port()))
        first = self.servers[0]
        for number, server in enumerate(self.servers):
            server.execute("CLUSTER", "ADDSLOTSRANGE", 16_384 * number // count, 16_384 * (number + 1) // count - 1)
            server.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if server is not first:
                server.execute("CLUSTER", "MEET", first.host, first.port)
        self.wait_until_ok()

    def wait_until_ok(self) -> None:
        wait_for(lambda: all(map(self._is_ok, self.servers)), "the cluster serves all slots")

    def _is_ok(self, server: RedisServer) -> bool:
        info = str(server.execute("CLUSTER", "INFO"))
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.servers)}" in info

    def add_replica(self, folder: Path) -> RedisServer:
        """Start a replica of the only node, and wait until it has the data."""
        (master,) = self.servers
        options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes-replica.conf")
        replica = RedisServer(folder, *options, port=find_free_port())
        self.servers.append(replica)
        replica.execute("CLUSTER", "MEET", master.host, master.port)
        self.wait_until_ok()
        replica.execute("CLUSTER", "REPLICATE", master.execute("CLUSTER", "MYID"))
        wait_for(lambda: replica.execute("ROLE")[3] == "connected", "the replica is connected")
        return replica

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{server.host}:{server.port}" for server in self.servers)
