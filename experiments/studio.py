"""Serving the page of `maml-rl view` through MuJoCo's Studio, whose page draws in the browser.

Studio itself listens on every interface. Here it listens on one, and does not start where that fails.
"""

import contextlib
import errno
import io
import ipaddress
import logging
import socket

import mujoco
from mujoco.studio import launch_thread, viewer_protocol, web_viewer

from experiments.panel import Panel
from maml_rl.errors import InputError


class _Viewer(web_viewer.WebViewer):
    """Studio's viewer on one interface instead of all."""

    def __init__(self, interface: str, port: int, panel: Panel) -> None:
        self.interface = interface
        endpoint, _ = launch_thread.make_thread_endpoints()  # there is no simulation at its other end
        config = viewer_protocol.ViewerConfig(title="maml-rl", gfx="web", http_port=port)
        super().__init__(config, endpoint, model=panel.scene.model, plugins=[panel])

    @property
    def _host(self) -> str:
        return self.interface

    @_host.setter
    def _host(self, _: str) -> None:
        pass

    def _start_server(self) -> None:
        bound, port = self._http_sock.getsockname()[:2]
        expected = {info[4][0] for info in socket.getaddrinfo(self.interface, None)}
        if bound not in expected:
            self._close_sockets()
            raise InputError(f"this version of MuJoCo, {mujoco.__version__}, would serve on {bound}, so it does not")
        try:
            # Studio's thread listens some time later, when the address has been told; and on Linux two processes can
            # hold a port until one of them listens.
            self._http_sock.listen()
        except OSError as error:
            self._close_sockets()
            raise InputError(f"port {port} of {self.interface} was taken this moment: start again") from error
        super()._start_server()

    def _close_sockets(self) -> None:
        self._http_sock.close()
        self._tcp_sock.close()


def serve(panel: Panel, host: str, port: int | None) -> None:
    """Serves the page until Ctrl-C.

    Args:
        panel: What it shows.
        host: Interface.
        port: Port; the first free one from 8080 on if None.

    Raises:
        InputError: If the port is in use.
    """
    logging.getLogger("WebServer").setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Studio's own banner, which tells of every interface
            viewer = _Viewer(host, port or 0, panel)
    except RuntimeError as error:
        raise InputError(str(error)) from error
    print(f"maml-rl view: {_address(host, viewer._http_port)}  (Ctrl-C ends it)", flush=True)
    if not _is_loopback(host):
        print("anyone who can reach this port can use the page: it asks for no password", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        viewer_protocol.run_viewer_loop(viewer)


def _address(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _is_loopback(host: str) -> bool:
    return all(ipaddress.ip_address(info[4][0]).is_loopback for info in socket.getaddrinfo(host, None))


def check_address(host: str, port: int | None) -> None:
    """Checks that a page can be served on an interface and port.

    Raises:
        InputError: If the port is in use or not allowed, or this machine has no such interface.
    """
    if port is not None and not 0 < port < 65536:
        raise InputError(f"--port must be between 1 and 65535, got {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {host} is in use: give another --port, or none for a free one") from None
        if error.errno == errno.EACCES:
            raise InputError(f"port {port} needs the rights of an administrator: give one from 1024 on") from None
        raise InputError(f"this machine cannot serve on --host {host} ({error.strerror or error})") from None
