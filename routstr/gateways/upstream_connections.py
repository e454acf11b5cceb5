"""The connections to one upstream: made, kept between two answers, and given out again.

Laws
- At most `connections_max` at a time; who finds none waits in line, and a place that becomes free
  goes to who waited longest, also if that one has just given up waiting.
- The address is judged when it is connected to (SR-7), so a name cannot change its mind in between;
  a certificate is checked for the name. No proxy, no other host, whatever the environment says.
- The connection that was used last is used next: the others grow old and are closed.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import aiohappyeyeballs

from routstr.gateways.tls import system_trusted
from routstr.gateways.upstream_wire import Wire

KEPT_S: Final = 15.0  # below what servers keep, so a reused connection is rarely a dead one
NAME_KNOWN_S: Final = 10.0
NEXT_ADDRESS_S: Final = 0.25  # RFC 8305 §5: then the next address is tried beside the last one
_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Connections:
    """All connections to `host` (canonical; IPv6 in brackets). Belongs to the running loop.

    `may_be_called` judges an address, `heard_of` names the headers that a `Wire` keeps.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        is_tls: bool,
        may_be_called: Callable[[str], bool],
        heard_of: frozenset[bytes],
        connections_max: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = host.strip("[]")
        self._port = port
        self._tls = system_trusted() if is_tls else None
        self._may_be_called = may_be_called
        self._heard_of = heard_of
        self._connections_max = connections_max
        self._wires: set[Wire] = set()
        self._kept: dict[Wire, None] = {}  # in order: the one used last comes last
        self._making = 0
        self._line: deque[asyncio.Future[Wire | None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._all_gone = asyncio.Event()
        self._naming: asyncio.Task[None] | None = None
        self._addresses: Sequence[aiohappyeyeballs.AddrInfoType] = ()
        self._known_until_s: float = 0

    def kept(self) -> Wire | None:
        """The kept connection that was used last, if there is any."""
        while self._kept:
            wire, _ = self._kept.popitem()
            if wire.is_usable():
                return wire
        return None

    async def another(self) -> Wire:
        """A connection made for this, or one that became free meanwhile.

        Whoever calls bounds the time. Raises OSError or UnicodeError, and nothing was sent then.
        """
        while True:
            if len(self._wires) + self._making < self._connections_max:
                self._making += 1
            else:
                wire = await self._turn()
                if wire is not None:
                    if wire.is_usable():
                        return wire
                    continue
            return await self._made()

    def give_back(self, wire: Wire) -> None:
        """Take back a connection whose answer is whole: for the next who asks, if it may be."""
        if not wire.let_go():
            return
        if self._is_closed:
            wire.abort()
        else:
            self._keep(wire)

    async def close(self) -> None:
        """End them all at once, and wait until they are gone."""
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for wire in list(self._wires):
            wire.abort()
        while self._wires:
            self._all_gone.clear()
            await self._all_gone.wait()

    # ── places ────────────────────────────────────────────────────────────────────────────────

    async def _turn(self) -> Wire | None:
        """Wait in line: for a connection, or for None, which is a place among those being made."""
        turn: asyncio.Future[Wire | None] = self._loop.create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in self._line:
                    self._line.remove(turn)
            elif (wire := turn.result()) is None:
                self._making -= 1
                self._free_place()
            elif wire.is_usable():
                self._keep(wire)
            raise

    def _keep(self, wire: Wire) -> None:
        """Give it to who waits, or keep it for a while."""
        if self._line and self._hand_on(wire):
            return
        wire.kept_until_s = self._loop.time() + KEPT_S
        self._kept[wire] = None
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEPT_S, self._sweep_old)

    def _hand_on(self, what: Wire | None) -> bool:
        """Give it to who waited longest; False if nobody waits."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(what)
                return True
        return False

    def _free_place(self) -> None:
        """A connection is gone, or was not to be had: its place is for who waits."""
        if self._line and not self._is_closed:
            self._making += 1
            if not self._hand_on(None):
                self._making -= 1

    def _lost(self, wire: Wire) -> None:
        if wire not in self._wires:  # it never had a place of its own
            return
        self._wires.remove(wire)
        self._kept.pop(wire, None)
        if not self._wires:
            self._all_gone.set()
        self._free_place()

    def _sweep_old(self) -> None:
        """Close those that were not used for long; the one at the front is the oldest."""
        self._sweep = None
        now_s = self._loop.time()
        for wire in list(self._kept):
            if wire.kept_until_s > now_s:
                self._sweep = self._loop.call_at(wire.kept_until_s, self._sweep_old)
                return
            del self._kept[wire]
            wire.abort()

    # ── making ────────────────────────────────────────────────────────────────────────────────

    async def _made(self) -> Wire:
        """A new connection, in a place that was taken for it."""
        try:
            wire = await self._connected()
            if wire.is_gone():
                raise ConnectionResetError("gone as soon as it was made")
        except BaseException:
            self._making -= 1
            self._free_place()
            raise
        self._making -= 1
        self._wires.add(wire)
        if self._is_closed or not wire.is_usable():
            wire.abort()
            raise ConnectionResetError("closed as soon as it was made")
        return wire

    async def _connected(self) -> Wire:
        plain = await aiohappyeyeballs.start_connection(
            await self._named(),
            happy_eyeballs_delay=NEXT_ADDRESS_S,
            loop=self._loop,
            socket_factory=self._socket,
        )
        # From here on the loop owns the socket, also when it fails.
        _, wire = await self._loop.create_connection(
            lambda: Wire(self._loop, heard_of=self._heard_of, on_lost=self._lost),
            sock=plain,
            ssl=self._tls,
            server_hostname=None if self._tls is None else self._host,
        )
        return wire

    async def _named(self) -> Sequence[aiohappyeyeballs.AddrInfoType]:
        """The addresses of the host, looked up once for all who connect at the same time.

        A look-up cannot be called off, so it goes on when nobody waits any more: whoever asks next
        waits for that one, and has its answer however slow it is.
        """
        if not self._addresses or self._loop.time() >= self._known_until_s:
            if self._naming is None:
                self._naming = self._loop.create_task(self._look_up(), name="upstream's name")
                self._naming.add_done_callback(self._has_named)
            await asyncio.shield(self._naming)
        return self._addresses

    async def _look_up(self) -> None:
        is_literal = ":" in self._host or self._host.replace(".", "").isdigit()
        self._addresses = await self._loop.getaddrinfo(
            self._host,
            self._port,
            type=socket.SOCK_STREAM,
            flags=_NUMERIC if is_literal else socket.AI_ADDRCONFIG,
        )
        self._known_until_s = self._loop.time() + NAME_KNOWN_S

    def _has_named(self, naming: asyncio.Task[None]) -> None:
        self._naming = None
        if not naming.cancelled():
            naming.exception()  # which everybody who waited was told

    def _socket(self, info: aiohappyeyeballs.AddrInfoType) -> socket.socket:
        """The socket for one resolved address, refused if nobody may call it (SR-7)."""
        family, kind, protocol, _, address = info
        if not self._may_be_called(str(address[0])):
            raise OSError("this address may not be called")
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
