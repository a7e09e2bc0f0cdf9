"""The members' face on the network: mutual TLS, and nobody is heard before a certificate has named them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from fedmunkey.common.console.face import Face
from fedmunkey.common.console.serving import Serving, configuration
from fedmunkey.common.identities import Identity
from fedmunkey.common.settings.addresses import split_address
from fedmunkey.server.connections.listening import listen
from fedmunkey.server.connections.places import Places
from fedmunkey.server.connections.web_server import Connection, WebServer
from fedmunkey.server.console.encryption import members_encryption
from fedmunkey.server.console.members_entrance import introducing
from fedmunkey.server.members.authority import hosts_of

_HTTPS = 443


@dataclass(frozen=True)
class MembersServer:
    """What serves members, and where their browsers find it."""

    serving: Serving
    address: str

    @classmethod
    def listening(cls, face: Face, address: str, identity: Identity) -> Self:
        """Listen at an address, `host:port`, under the hosts of the coordinator's certificate and no other names.

        Raises `InvalidSetting` if that cannot be.
        """
        host, port = split_address(address)
        sockets = listen(host, port, "--members-address")
        port = sockets[0].getsockname()[1]
        hosts = [f"[{name}]" if ":" in name else name for name in hosts_of(identity.certificate)]
        # Browsers leave the port out where it is the usual one.
        names = {f"{name}:{port}" for name in hosts} | (set(hosts) if port == _HTTPS else set())
        places = Places()
        config = configuration(introducing(face.app, places), names, http=Connection)
        config.load()
        config.ssl = members_encryption(identity)
        server = WebServer(config, [places] * len(sockets))
        shown = hosts[0] if port == _HTTPS else f"{hosts[0]}:{port}"
        face.named(f"{hosts[0]}:{port}")
        return cls(Serving(server, sockets), shown)
