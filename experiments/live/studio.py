"""Serves the page of `maml-rl view` through MuJoCo's Studio, whose page draws in the browser.

Studio itself listens on every interface, answers every page that is open in the browser, and takes models that are
dropped onto its page. Here it listens on one interface, answers only its own page and takes no models. If any of that
fails, it does not start.
"""

import contextlib
import errno
import io
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Collection
from http.client import HTTPConnection, HTTPException
from typing import Any

import mujoco
from mujoco.studio import launch_thread, viewer_protocol, web_viewer
from mujoco.studio.web import web_server

from maml_rl.errors import InputError
from maml_rl.experiments.live.panel import LivePanel

_CHANNELS = ("/ui", "/state")
"""Paths of the page's two WebSockets; the third of Studio, /drop, takes models."""

_LARGEST_MESSAGE = 2**16  # bytes; the page sends mouse, keys and what is pasted into a text field
_PATIENCE = 10.0  # seconds for an answer of our own server
_serve = web_server.serve


class _Viewer(web_viewer.WebViewer):
    """Studio's viewer on one interface instead of all, for its own page only."""

    def __init__(self, interface: str, port: int, panel: LivePanel) -> None:
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
            # Studio's thread listens some time after the address has been printed; and on Linux two processes can
            # hold a port until one of them listens.
            self._http_sock.listen()
        except OSError as error:
            self._close_sockets()
            raise InputError(f"port {port} of {self.interface} has just been taken: start again") from error
        web_server.serve = guarded(self.interface)
        super()._start_server()
        if not _refuses_strangers(bound, port):
            self._stop_server()
            self._close_sockets()
            raise InputError(
                f"this version of MuJoCo, {mujoco.__version__}, would let any page of the browser in, so it does not"
            )

    def _close_sockets(self) -> None:
        self._http_sock.close()
        self._tcp_sock.close()


def guarded(interface: str) -> Callable[..., Any]:
    """Studio's `websockets.serve`, which refuses the requests that `refusal` names and takes only short messages.

    Args:
        interface: The interface that is served on, as its user gave it.
    """

    names = {"localhost", interface.lower()}
    if not _is_loopback(interface):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def serve_guarded(handler: Any, **settings: Any) -> Any:
        answer = settings["process_request"]

        def process_request(connection: Any, request: Any) -> Any:
            headers = request.headers
            reason = refusal(request.path, headers.get_all("Host"), headers.get_all("Origin"), names)
            if reason is None:
                return answer(connection, request)
            return web_server.Response(403, "Forbidden", web_server.Headers(), f"{reason}\n".encode())

        return _serve(handler, **settings | {"process_request": process_request, "max_size": _LARGEST_MESSAGE})

    return serve_guarded


def refusal(path: str, hosts: list[str], origins: list[str], names: Collection[str]) -> str | None:
    """Why a request is refused; None if it is answered.

    A browser says in `Origin` which page sends a request, and in `Host` to which address. The first reveals a page of
    another origin. The second reveals a page whose name was made to point here (DNS rebinding), which cannot be done
    with an IP address or this machine's own names. Any port will do, since a tunnel may have another one at its other
    end.

    Args:
        path: The path of the request.
        hosts: Its headers `Host`.
        origins: Its headers `Origin`.
        names: Names of this machine, in lower case.
    """
    channel = path.partition("?")[0]
    if channel == "/drop":
        return "maml-rl view takes no models"
    if len(hosts) != 1 or not _is_own(hosts[0], names):
        return "unknown host: use the address that maml-rl view prints, or the machine's IP address in numbers"
    needed = channel in _CHANNELS  # a browser opens no WebSocket without it
    if len(origins) > 1 or (not origins and needed) or any(origin != f"http://{hosts[0]}" for origin in origins):
        return "only the page that maml-rl view serves may use it"
    return None


def _is_own(host: str, names: Collection[str]) -> bool:
    """Whether a header `Host` has an IP address or one of some names, with or without a port."""
    parts = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?", host.lower(), re.ASCII)
    if parts is None:
        return False
    try:
        ipaddress.ip_address(parts[1] or parts[2])
    except ValueError:
        return parts[2] in names
    return True


def _refuses_strangers(address: str, port: int) -> bool:
    """Whether the server that runs here refuses a page of another host."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    try:
        with contextlib.closing(HTTPConnection(local, port, timeout=_PATIENCE)) as connection:
            connection.request("GET", "/", headers={"Host": "stranger.invalid"})
            return connection.getresponse().status == 403
    except (OSError, HTTPException):
        return False


def serve(panel: LivePanel, host: str, port: int | None) -> None:
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
        with contextlib.redirect_stdout(io.StringIO()):  # Studio's banner, which names every interface
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
            raise InputError(f"port {port} needs administrator rights: give one from 1024 on") from None
        raise InputError(f"this machine cannot serve on --host {host} ({error.strerror or error})") from None
