"""A real PostgreSQL server in a temporary folder, where its programs are installed."""

import contextlib
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

RUN_AS = "nobody"


def find_programs():
    """Folder of `initdb` and `pg_ctl`; None where there is none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    return next((folder for folder in folders if (folder / "pg_ctl").exists() and (folder / "initdb").exists()), None)


def why_not():
    """Why no server can be started; None where one can."""
    if find_programs() is None:
        return "PostgreSQL's initdb and pg_ctl are not installed"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return None


class Server:
    """One server that is initialised, started and stopped by the tests."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.data = self.folder / "data"
        self._numbers = itertools.count()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def initialise(self):
        self._run("initdb", "-D", str(self.data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self, addresses="127.0.0.1"):
        """Start it; other addresses than this machine's own trust everyone of the same network."""
        if addresses != "127.0.0.1":
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")
        options = (
            f"-p {self.port} -c listen_addresses={addresses} -c unix_socket_directories={self.folder} -c fsync=off"
        )
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self):
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    def new_database(self, name=None):
        """Make an empty database, of a name of its own where none is given, and give its address."""
        name = name or f"database_{next(self._numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", name)
        return f"postgresql://tester@127.0.0.1:{self.port}/{name}"

    def _run(self, program, *arguments):
        command = [str(find_programs() / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", RUN_AS, "--", *command]
        subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self.folder, timeout=60,
        )  # fmt: skip


@contextlib.contextmanager
def running_server(addresses="127.0.0.1"):
    """Start a server in a fresh folder and remove both in the end."""
    folder = Path(tempfile.mkdtemp(prefix="autotune_pg_"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam(RUN_AS).pw_uid, -1)
        server = Server(folder)
        server.initialise()
        server.start(addresses)
        try:
            yield server
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
