"""Where a server listens: an address, a socket file, or what the service manager has opened."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from fastgpt_c.errors import FastGPTError, UsageError
from fastgpt_c.server.settings import Settings

_FIRST_INHERITED = 3  # systemd's sd_listen_fds(3)
BACKLOG = 2048


def open_sockets(settings: Settings) -> list[socket.socket]:
    """Sockets that are bound, not yet listening.  Raises FastGPTError where that cannot be."""
    inherited = _inherited()
    if inherited:
        return inherited
    if settings.uds is not None:
        return [_file_socket(settings.uds)]
    return [_address_socket(settings.host, settings.port)]


def is_inherited() -> bool:
    """Whether the service manager has opened sockets for this process."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "").isdigit()


def _inherited() -> list[socket.socket]:
    if not is_inherited():
        return []
    n = int(os.environ.pop("LISTEN_FDS"))
    os.environ.pop("LISTEN_PID")
    return [socket.socket(fileno=number) for number in range(_FIRST_INHERITED, _FIRST_INHERITED + n)]


def _file_socket(path: Path) -> socket.socket:
    """Of the owner's and the group's alone.  A socket that nobody listens to is replaced, and nothing else is."""
    opened = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        if _is_stale(path):
            path.unlink()
        opened.bind(str(path))
    except OSError as error:
        opened.close()
        raise FastGPTError(f"{path}: cannot listen there: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return opened


def _is_stale(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


def _address_socket(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror}") from None
    family, kind, protocol, _, address = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise FastGPTError(
            f"{host} port {port}: cannot listen there: {error.strerror}; choose another one with --port"
        ) from None
    return opened


def shown_address(opened: socket.socket, *, tls: bool) -> str:
    """For people."""
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return str(name)
    host = f"[{name[0]}]" if opened.family == socket.AF_INET6 else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"
